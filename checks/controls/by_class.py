"""The controls of each class of claim: the models on which its gate ought to fail.

*Presence* must be missing from shuffled and from freshly initialised models; *absence* must be
missed where the opposite was planted, also when the plant is seen in other coordinates; a
*schedule* must be rarer among surrogates of its track; an *association* must not survive shuffled
weights.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from analyses import registry
from checks.claims.gate import Gate
from checks.claims.verdicts import BLIND
from checks.controls.subject import Evidence, Run, Subject, run_of
from checks.controls.surrogates import TRACKS, surrogate_records
from checks.maps.catalogue import SCRAMBLE
from checks.twins.planted import adjacent_mixture, common_direction, query_key_mixture, truncated_residual
from checks.twins.twins import INITIALISED, SHUFFLED, Twin

TWINS = 19  # of each kind: two passes are then more than one in twenty
COSTLY_TWINS = 3  # for claims that need a forward pass
VACUOUS = 2  # passes of one kind that make a presence worthless
DRIFT = 0.05  # share of surrogates that may pass

_ADJACENT = tuple(adjacent_mixture(cos=cos) for cos in (0.5, 0.25, 0.125))
PLANTS: Mapping[str, tuple[Twin, ...]] = {
    "NR1": _ADJACENT,
    "NR1m": _ADJACENT,
    "NR2": _ADJACENT,
    "NR3": tuple(truncated_residual(keep=keep) for keep in (0.5, 0.75, 0.875)),
    "HG1": _ADJACENT,
    "HG3": tuple(query_key_mixture(cos=cos) for cos in (0.4, 0.2, 0.1)),
    "DS3": tuple(common_direction(size=size) for size in (1.0, 0.5, 0.25)),
}
"""Claim of absence → planted twins: the first, of the stated size, must fail it; the others find how little it sees."""


def twinned(subject: Subject) -> dict[str, Evidence]:
    """Claims of presence and of association, on shuffled twins and, for a presence, on initialised ones."""
    present, associated = subject.gates("presence"), subject.gates("association")
    runs = _twins(subject, present + associated, SHUFFLED)
    for claim, initialised in _twins(subject, present, INITIALISED).items():
        runs[claim] = runs.get(claim, []) + initialised
    judges = {gate.id: _presence for gate in present} | {gate.id: _association for gate in associated}
    return {claim: judges[claim](own) for claim, own in runs.items()}


def _presence(runs: Sequence[Run]) -> Evidence:
    """Two or more passes among shuffled, or among initialised twins: vacuous."""
    counts = _pass_counts(runs)
    worst = max(counts, key=lambda kind: counts[kind][0] / counts[kind][1])
    told = "; ".join(f"{passed} of {total} {kind} models pass" for kind, (passed, total) in counts.items())
    answer = "vacuous" if any(passed >= VACUOUS for passed, _ in counts.values()) else "informative"
    detail = f"{told}; the {worst} ones show it too" if answer == "vacuous" else told
    return Evidence(answer=answer, detail=detail, runs=tuple(runs))


def absence(subject: Subject) -> dict[str, Evidence]:
    """The plant must fail the claim, in scrambled coordinates too; weaker plants find the detection limit."""
    evidence = {}
    for plants in dict.fromkeys(PLANTS.values()):
        gates = [gate for gate in subject.gates("absence") if PLANTS[gate.id] is plants]
        if reason := plants[0].undefined(subject.checkpoint):
            evidence |= {gate.id: Evidence(answer="not defined", detail=reason) for gate in gates}
            continue
        hidden: dict[str, Run] = {}
        if not SCRAMBLE.undefined(subject.checkpoint):
            twin = SCRAMBLE.apply(plants[0].apply(subject.checkpoint, subject.settings.seed), subject.settings.seed)
            hidden = subject.judge(f"{plants[0].name}, scrambled", gates, checkpoint=twin)
        seen = _weaker_and_weaker(subject, gates, plants)
        evidence |= {g.id: _absence(plants, seen[g.id], hidden.get(g.id)) for g in gates}
    return evidence


def _weaker_and_weaker(subject: Subject, gates: Sequence[Gate], plants: Sequence[Twin]) -> dict[str, list[Run]]:
    """Claim → its runs on the plants, strongest first, up to the first that it does not see.

    A claim that fails on the model itself has no detection limit, and is asked of the first plant alone.
    """
    runs: dict[str, list[Run]] = {gate.id: [] for gate in gates}
    asked = list(gates)
    for plant in plants:
        twin = plant.apply(subject.checkpoint, subject.settings.seed)
        for claim, run in subject.judge(f"{plant.name} {plant.size:g}", asked, checkpoint=twin).items():
            runs[claim].append(run)
        asked = [g for g in asked if runs[g.id][-1].status == "fail" and subject.outcomes[g.id].status == "pass"]
    return runs


def _absence(plants: Sequence[Twin], seen: Sequence[Run], hidden: Run | None) -> Evidence:
    runs = (*seen, hidden) if hidden else tuple(seen)
    planted = f"a planted {plants[0].name} of size {plants[0].size:g}"
    if seen[0].status != "fail":
        return Evidence(answer="insensitive", detail=f"it does not fail on {planted} ({seen[0].status})", runs=runs)
    if hidden is not None and hidden.status != "fail":
        told = f"it sees {planted}, but not in scrambled coordinates ({hidden.status})"
        return Evidence(answer=BLIND, detail=told, runs=runs)
    least = [plant.size for plant, run in zip(plants, seen, strict=False) if run.status == "fail"]
    told = f"it sees {planted}" + (", scrambled too" if hidden else "")
    told += f"; detection limit: it still fails at size {least[-1]:g}"
    told += f" and no longer at {plants[len(least)].size:g}" if len(seen) > len(least) else ""
    return Evidence(answer="informative", detail=told, runs=runs)


def _association(runs: Sequence[Run]) -> Evidence:
    """Shuffled weights that pass too: mechanical. The broken pairing is in the claim's own p-value."""
    ((passed, total),) = _pass_counts(runs).values()
    answer = "mechanical" if passed >= VACUOUS else "informative"
    return Evidence(answer=answer, detail=f"{passed} of {total} models with shuffled weights pass", runs=tuple(runs))


def schedule(subject: Subject) -> dict[str, Evidence]:
    """More than one in twenty surrogates passes: generic drift."""
    asked = {gate.id: gate for gate in subject.gates("schedule")}
    runs: dict[str, list[Run]] = {claim: [] for claim in asked}
    for claims in TRACKS:
        gates = [asked[claim] for claim in claims if claim in asked]
        if not gates:
            continue
        subject.say(f"{subject.checkpoint.name}: control surrogates of {', '.join(gate.id for gate in gates)}")
        for kind, found in surrogate_records(claims, subject.found, seed=subject.settings.seed):
            for gate in gates:
                runs[gate.id].append(run_of(gate, found, name=kind))
    return {claim: _schedule(own) for claim, own in runs.items()}


def _schedule(runs: Sequence[Run]) -> Evidence:
    counts = _pass_counts(runs)
    told = " and ".join(
        f"{passed} of {total} {'tracks in random order' if kind == 'order' else 'random walks'}"
        for kind, (passed, total) in counts.items()
    )
    drift = any(passed > DRIFT * total for passed, total in counts.values())
    return Evidence(answer="generic drift" if drift else "informative", detail=f"{told} pass", runs=tuple(runs))


def _twins(subject: Subject, gates: Sequence[Gate], kind: Twin) -> dict[str, list[Run]]:
    """Every gate on TWINS twins, or on COSTLY_TWINS where it needs a forward pass; none where the kind is undefined."""
    runs: dict[str, list[Run]] = {}
    for i in range(0 if kind.undefined(subject.checkpoint) else TWINS):
        asked = [gate for gate in gates if i < COSTLY_TWINS or not needs_forward(gate)]
        twin = kind.apply(subject.checkpoint, subject.settings.seed + i)
        for claim, run in subject.judge(kind.name, asked, number=i, checkpoint=twin).items():
            runs.setdefault(claim, []).append(run)
    return runs


def needs_forward(gate: Gate) -> bool:
    return registry.reads_text(gate.analysis)


def _pass_counts(runs: Sequence[Run]) -> dict[str, tuple[int, int]]:
    """Kind → (passes, runs)."""
    total, passed = Counter(run.name for run in runs), Counter(run.name for run in runs if run.status == "pass")
    return {kind: (passed[kind], count) for kind, count in total.items()}
