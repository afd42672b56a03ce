"""Controls by class of claim: models on which the answer ought to be another.

A *presence* or an *association* that holds must be rare among shuffled twins, a presence among freshly initialised
ones too: p is the share of them that show as much (drawn one after the other, and no further than needed). An *absence*
that holds must fail where the opposite was planted. A *presence* or a *schedule* that does not hold must hold where it
was planted, or its absence was never to be seen. How rare a schedule is among random walks stands in its own record, as
does the power of every test.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from analyses.numerics.pvalues import STOP, sequential_p
from checks.claims.gate import POWER, Gate, Outcome
from checks.controls.planted_streams import SINKS, STREAMS, planted_sinks, planted_streams
from checks.controls.steps import counts
from checks.controls.subject import Evidence, Run, Subject, claimed, needs_forward, run_of
from checks.controls.surrogates import DRAWS, TRACKS, planted_records
from checks.own.statement import planted_for
from checks.twins.planted import (
    adjacent_mixture,
    common_direction,
    common_subspace,
    own_direction,
    query_key_mixture,
    repeated_phase,
    repeated_readers,
)
from checks.twins.planted_parts import heavy_tails, tapered_heads
from checks.twins.twins import INITIALISED, SHUFFLED, Twin

TWINS = 19  # of each kind at most: none of them as extreme is then p = 0.05
LEVEL = 0.05

# A twin that several claims share is made and measured once for all of them.
_ADJACENT = tuple(adjacent_mixture(cos=cos) for cos in (0.5, 0.25, 0.125))
_COMMON = tuple(common_direction(size=size) for size in (1.0, 0.5, 0.25))
_COMMON_EIGHT = tuple(common_direction(size=size, rank=8) for size in (1.0, 0.5))
_OWN = own_direction(size=3.0)
_PHASE_C = repeated_phase("C")

Ladder = tuple[Twin, ...]  # of one kind of plant, strongest first
PLANTS: Mapping[str, tuple[Ladder, ...]] = {
    "NR1": (tuple(repeated_readers(cos=cos) for cos in (0.5, 0.25, 0.125)),),
    "NR1m": (_ADJACENT,),
    "NR3": (tuple(common_subspace(keep=keep) for keep in (0.5, 0.75)),),
    "HG1": (_ADJACENT,),
    "HG3": (tuple(query_key_mixture(cos=cos) for cos in (0.4, 0.2, 0.1)),),
    "DS3": (_COMMON, _COMMON_EIGHT),
    "AN4": (_COMMON[:2],),
    "HG4": (tuple(query_key_mixture(cos=cos) for cos in (0.8, 0.6)),),
}
"""Absence → planted twins: the first of every ladder, of the stated size, must fail it; weaker ones find how little it
sees.

DS3 reads the first directions and the whole covariances, and either's failure is its own. One direction of the write's
size is the first of every layer and fails both. Eight share that energy among them: no layer's first direction is
another's (|cos| of two random ones among eight is 0.28 in the mean), the covariances have eight dimensions in common,
and it is their alignment that must fail.
"""

POSITIVES: Mapping[str, Twin] = {
    "NR5": adjacent_mixture(cos=0.8),
    "HG2": adjacent_mixture(cos=0.9),
    **dict.fromkeys(("DS1", "DS2", "AN2"), _OWN),
    **dict.fromkeys(("AN1", "AN3"), _PHASE_C),
    "HG4e": query_key_mixture(cos=0.9),
    "HG5": tapered_heads(size=1.5),
    "WS1": heavy_tails(alpha=3.0),
}
"""Presence → the planted twin on which it must hold."""


UNTRAINED = ("RS4", "RS5", "RS7")
"""Schedules that an untrained stack may show by itself: they must be rare among freshly initialised twins too."""


def controlled(subject: Subject) -> dict[str, Evidence]:
    """Every row about the model whose class has a control for its answer; claim id → evidence."""
    evidence = unplanted(subject)
    for stage in (nulls, absences, positives, schedules):
        with subject.steps.stage():
            evidence |= stage(subject)
    return evidence | streams(subject)


def most_steps(subject: Subject) -> list[int]:
    """Counts of each stage of `controlled` at most."""
    present, associated = subject.gates("presence", status="pass"), subject.gates("association", status="pass")
    untrained = [gate for gate in subject.gates("schedule", status="pass") if gate.id in UNTRAINED]
    absent = [(plant, g) for g in subject.gates("absence", status="pass") for own in plants_for(g) for plant in own]
    positive = [(POSITIVES[g.id], g) for g in subject.gates("presence", status="fail") if g.id in POSITIVES]
    asked = {gate.id for gate in subject.gates("schedule", status="fail")}
    return [
        TWINS * sum(_counts([("", gate) for gate in gates]) for gates in (present + associated, present + untrained)),
        _counts(absent),
        _counts(positive),
        DRAWS * sum(not asked.isdisjoint(claims) for claims in TRACKS),
    ]


def _counts(asked: Sequence[tuple[Any, Gate]]) -> int:
    """Of one measurement of each twin, of which all these claims are asked."""
    reading = {twin for twin, gate in asked if needs_forward(gate)}
    return sum(counts(twin in reading) for twin in {twin for twin, _ in asked})


def unplanted(subject: Subject) -> dict[str, Evidence]:
    """Claims of one's own that do not hold, where nothing shows that they could have."""
    told = Evidence(answer="insensitive", detail="nothing is planted for this claim, so that it is absent is not shown")
    own = {claim.id for claim in subject.own if claim.kind in ("presence", "schedule")}
    return {gate.id: told for gate in subject.gates("presence", "schedule", status="fail") if gate.id in own}


# --- what holds must be rare among models that have nothing to show --------------------------------


def nulls(subject: Subject) -> dict[str, Evidence]:
    present, associated = subject.gates("presence", status="pass"), subject.gates("association", status="pass")
    untrained = [gate for gate in subject.gates("schedule", status="pass") if gate.id in UNTRAINED]
    shuffled = _drawn(subject, [*present, *associated], SHUFFLED)
    initialised = _drawn(subject, [*present, *untrained], INITIALISED)
    words = {gate.id: "vacuous" for gate in [*present, *untrained]}
    words |= {gate.id: "mechanical" for gate in associated}
    if reason := SHUFFLED.undefined(subject.checkpoint):
        return {claim: Evidence(answer="not defined", detail=reason) for claim in words}
    return {
        claim: _rare(subject.outcomes[claim], words[claim], {**shuffled.get(claim, {}), **initialised.get(claim, {})})
        for claim in words
        if claim in shuffled or claim in initialised
    }


def _drawn(subject: Subject, gates: Sequence[Gate], kind: Twin) -> dict[str, dict[str, list[Run]]]:
    """Twins of a kind until each claim has seen STOP that are at least as extreme, or TWINS of them."""
    runs: dict[str, dict[str, list[Run]]] = {}
    asked = [] if kind.undefined(subject.checkpoint) else list(gates)
    for i in range(TWINS):
        if not asked:
            break
        twin = kind.apply(subject.checkpoint, subject.settings.seed + i)
        for claim, run in subject.judge(kind.name, asked, number=i, checkpoint=twin).items():
            runs.setdefault(claim, {}).setdefault(kind.name, []).append(run)
        asked = [g for g in asked if _exceeding(subject.outcomes[g.id], runs[g.id][kind.name]) < STOP]
    return runs


def _exceeding(outcome: Outcome, runs: Sequence[Run]) -> int:
    return sum(as_extreme(outcome, run) for run in runs)


def as_extreme(outcome: Outcome, run: Run) -> bool:
    """Whether each number with a limit is at least as far on the limit's passing side as the model's own.

    False where one of them is undefined; numbers that are p-values are not asked.
    """
    pairs = [(f, x) for f, x in zip(outcome.findings, run.observed, strict=True) if not f.test]
    if any(value is None or finding.observed is None for finding, value in pairs):
        return False
    return all(v <= f.observed if f.comparator.startswith("<") else v >= f.observed for f, v in pairs)


def _defined(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if all(value is not None for value in run.observed)]


def _rare(outcome: Outcome, worthless: str, kinds: Mapping[str, Sequence[Run]]) -> Evidence:
    told, p = [], {}
    for kind, drawn in kinds.items():
        defined = _defined(drawn)
        without = f" ({len(drawn) - len(defined)} more have no such number)" if len(defined) < len(drawn) else ""
        if not defined:
            told.append(f"none of {len(drawn)} {kind} models has such a number")
            continue
        exceeding = _exceeding(outcome, defined)
        p[kind] = sequential_p(exceeding, len(defined))
        told.append(f"{exceeding} of {len(defined)} {kind} models show as much{without} (p = {p[kind]:.2g})")
    runs = tuple(run for drawn in kinds.values() for run in drawn)
    if not p:
        return Evidence(answer="not defined", detail="; ".join(told), runs=runs)
    common = max(p.values()) > LEVEL
    return Evidence(answer=worthless if common else "informative", detail="; ".join(told), runs=runs, p=p)


# --- what is absent must be seen where it was planted ----------------------------------------------


UNPLANTED = Evidence(answer="insensitive", detail="nothing is planted on which this claim would fail")


def absences(subject: Subject) -> dict[str, Evidence]:
    """The strongest plant of every ladder must fail the claim; weaker ones find the least that it sees."""
    gates = {gate.id: gate for gate in subject.gates("absence", status="pass")}
    ladders = {(claim, i): ladder for claim, gate in gates.items() for i, ladder in enumerate(plants_for(gate))}
    why = {key: ladder[0].undefined(subject.checkpoint) for key, ladder in ladders.items()}
    seeing = [key for key in ladders if why[key] is None]
    runs: dict[tuple[str, int], list[Run]] = {key: [] for key in seeing}
    for step in range(max(map(len, ladders.values()), default=0)):
        by_plant: dict[Twin, list[tuple[str, int]]] = {}
        for key in seeing:
            if step < len(ladders[key]):
                by_plant.setdefault(ladders[key][step], []).append(key)
        for plant, keys in by_plant.items():
            twin = plant.apply(subject.checkpoint, subject.settings.seed)
            found = subject.judge(_title(plant), [gates[claim] for claim, _ in keys], checkpoint=twin)
            for key in keys:
                runs[key].append(found[key[0]])
        seeing = [key for key in seeing if not runs[key] or runs[key][-1].status == "fail"]
    parts: dict[str, list[Evidence]] = {claim: [UNPLANTED] for claim, gate in gates.items() if not plants_for(gate)}
    for key, ladder in ladders.items():
        reason = why[key]
        own = _absence(ladder, runs[key]) if reason is None else Evidence(answer="not defined", detail=reason)
        parts.setdefault(key[0], []).append(own)
    return {claim: _of_all(found) for claim, found in parts.items()}


def plants_for(gate: Gate) -> tuple[Ladder, ...]:
    """Of a built-in absence its own; of another that of a built-in one which reads the same number."""
    serving = (id for id in planted_for(gate.conditions[0].path) if id in PLANTS)
    return PLANTS.get(gate.id) or PLANTS.get(next(serving, ""), ())


def _title(plant: Twin) -> str:
    return f"{plant.name} {plant.size:g}"


def _absence(plants: Ladder, runs: Sequence[Run]) -> Evidence:
    planted = f"a planted {plants[0].name} of size {plants[0].size:g}"
    if runs[0].status != "fail":
        missed = f"it does not fail on {planted} ({runs[0].status})"
        return Evidence(answer="insensitive", detail=missed, runs=tuple(runs))
    least = [plant.size for plant, run in zip(plants, runs, strict=False) if run.status == "fail"]
    told = f"it sees {planted}; detection limit: it still fails at size {least[-1]:g}"
    told += f" and no longer at {plants[len(least)].size:g}" if len(runs) > len(least) else ""
    return Evidence(answer="informative", detail=told, runs=tuple(runs))


def _of_all(parts: Sequence[Evidence]) -> Evidence:
    """One kind of plant that is not seen is enough to be insensitive."""
    answers = [part.answer for part in parts]
    answer = next(word for word in ("insensitive", "not defined", "informative") if word in answers)
    runs = tuple(run for part in parts for run in part.runs)
    return Evidence(answer=answer, detail="; ".join(part.detail for part in parts), runs=runs)


# --- what does not hold must hold where it was planted ---------------------------------------------


def positives(subject: Subject) -> dict[str, Evidence]:
    evidence = {}
    gates = [gate for gate in subject.gates("presence", status="fail") if gate.id in POSITIVES]
    for plant in dict.fromkeys(POSITIVES[gate.id] for gate in gates):
        asked = [gate for gate in gates if POSITIVES[gate.id] is plant]
        if reason := plant.undefined(subject.checkpoint):
            evidence |= {gate.id: Evidence(answer="not defined", detail=reason) for gate in asked}
            continue
        twin = plant.apply(subject.checkpoint, subject.settings.seed)
        found = subject.judge(_title(plant), asked, checkpoint=twin)
        planted = f"a planted {plant.name} of size {plant.size:g}"
        evidence |= {claim: _positive(planted, [run], subject.outcomes[claim]) for claim, run in found.items()}
    return evidence


def schedules(subject: Subject) -> dict[str, Evidence]:
    """A schedule that does not hold, on tracks that follow the planted law and wander about it as the model's do."""
    evidence = {}
    asked = {gate.id: gate for gate in subject.gates("schedule", status="fail")}
    for claims, track in TRACKS.items():
        gates = [asked[claim] for claim in claims if claim in asked]
        if not gates:
            continue
        subject.say(f"{subject.checkpoint.name}: control planted schedules of {', '.join(gate.id for gate in gates)}")
        runs: dict[str, list[Run]] = {gate.id: [] for gate in gates}
        for number, found in enumerate(planted_records(claims, subject.found, seed=subject.settings.seed)):
            for gate in gates:
                runs[gate.id].append(run_of(gate, found, name="planted schedule", seed=number))
            subject.steps.step()
            if all(_settled(runs[gate.id], subject.outcomes[gate.id]) for gate in gates):
                break
        evidence |= {claim: _positive(track.law, own, subject.outcomes[claim]) for claim, own in runs.items()}
    return evidence


def streams(subject: Subject) -> dict[str, Evidence]:
    """A claim about states that does not hold, on a planted stream of the model's own sizes."""
    evidence = {}
    failed = {gate.id: gate for gate in subject.gates("presence", "schedule", status="fail")}
    if gate := failed.get("AT1"):
        run = run_of(gate, planted_sinks(subject.found, seed=subject.settings.seed), name="planted attention")
        evidence[gate.id] = _positive(SINKS, [run], subject.outcomes[gate.id])
    asked = {
        claim: frozenset(path.rpartition(".")[2] for path in claimed([gate]))
        for claim, gate in failed.items()
        if claim in STREAMS
    }
    if asked:
        subject.say(f"{subject.checkpoint.name}: control planted streams of {', '.join(asked)}")
        found = planted_streams(asked, subject.checkpoint, subject.found, seed=subject.settings.seed)
        for claim, records in found.items():
            run = run_of(failed[claim], records, name="planted stream")
            evidence[claim] = _positive(STREAMS[claim].law, [run], subject.outcomes[claim])
    return evidence


def _seen(runs: Sequence[Run], outcome: Outcome) -> int:
    """Draws in which the plant is seen by each condition by which the model fails.

    A model that fails by one number of two is told from the plant by that number, whatever the other says of the plant.
    """
    failed = [finding.status == "fail" for finding in outcome.findings]
    return sum(all(s == "pass" for s, f in zip(run.findings, failed, strict=True) if f) for run in runs)


def _settled(runs: Sequence[Run], outcome: Outcome) -> bool:
    """Whether the answer is that of all DRAWS, whatever the draws that are left would show."""
    seen = _seen(runs, outcome)
    return seen >= POWER * DRAWS or seen + DRAWS - len(runs) < POWER * DRAWS


def _positive(planted: str, runs: Sequence[Run], outcome: Outcome) -> Evidence:
    """Whether the plant is seen in at least POWER of the draws."""
    seen = _seen(runs, outcome)
    share = f"in {seen} of {len(runs)} draws" if len(runs) > 1 else f"({runs[0].status})"
    if seen < POWER * len(runs):
        return Evidence(answer="insensitive", detail=f"it does not hold on {planted} either {share}", runs=tuple(runs))
    whole = sum(run.status == "pass" for run in runs) >= POWER * len(runs)
    told = f"it holds on {planted} {share}" if whole else f"what it fails by is within its limit on {planted}"
    return Evidence(answer="informative", detail=told, runs=tuple(runs))
