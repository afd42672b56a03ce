"""What is each verdict worth? The same gates on models that ought to answer otherwise, or the same.

By class of claim: *presence* must be missing from shuffled and from freshly initialised models;
*absence* must be missed where the opposite was planted, also when the plant is seen in other
coordinates; a *schedule* must be rarer among surrogates of its track; an *association* must not
survive shuffled weights. Every claim: an exact change of coordinates must leave its answer alone,
and its margin must exceed what precision, implementation, threads, seeds and text move.

A twin is measured by the very same analyses, in memory, and judged by the very same gates.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from analyses.calibration import Calibration
from analyses.checkpoint import Checkpoint
from analyses.records import SCHEMA_VERSION
from analyses.suite import FORWARD, NEEDS, Settings, records_of
from checks.claims import CLAIMS
from checks.coordinates import RAMP_INPUT_GAIN, SCRAMBLE
from checks.gate import Gate, Outcome, Status, evaluate
from checks.planted import adjacent_mixture, common_direction, query_key_mixture, truncated_residual
from checks.roles import Role
from checks.surrogates import TRACKS, surrogate_records
from checks.twins import INITIALISED, SHUFFLED, Twin, TwinCheckpoint
from checks.verdicts import BLIND, CHANGES, WITHIN_NOISE

PARTS = ("class", "coordinates", "noise")
TWINS = 19  # of each kind: two passes are then more than one in twenty
COSTLY_TWINS = 3  # for claims that need a forward pass
VACUOUS = 2  # passes of one kind that make a presence worthless
DRIFT = 0.05  # share of surrogates that may pass
SCRAMBLES = 2  # drawn scrambles of the coordinates
WINDOWS = 4  # of the calibration text, each leaving out another quarter
ROUNDING = 1e-9  # relative; float64 statistics of exactly equal models agree to this
HALF_UNIT = 2.0**-9  # relative half unit in the last place of bfloat16

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
"""Claim of absence → planted twins: the first, of the stated size, must fail it; the weaker ones find how little it sees."""

REROUNDED = Twin(
    name="rounded again",
    preserves="every entry up to half a unit in the last place of bfloat16",
    destroys="what only the last bits carry",
    change=lambda twin, role, value: value.double() * (1 + HALF_UNIT * _uniform(twin, role, value)),
)
"""What storing the weights once more in bfloat16 could have done to them."""


def _uniform(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    draw = torch.rand(value.shape, generator=twin.draw(role.part, role.layer, role.bias), dtype=torch.float64)
    return 2 * draw - 1


Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One claim judged on one model that is not the model."""

    name: str  # what was done
    seed: int  # of the draw
    status: Status
    observed: tuple[float | None, ...]  # per condition of the gate
    where: str | None  # the family, form or descriptor that decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One of a claim's three answers, with what it rests on."""

    answer: str
    detail: str
    runs: tuple[Run, ...] = ()
    bands: tuple[float | None, ...] = ()  # noise only: how far each number of the gate moved at most


@dataclass(frozen=True, slots=True)
class Subject:
    """The model under control: its checkpoint, text and settings, and the records measured from it."""

    checkpoint: Checkpoint
    text: Calibration
    settings: Settings
    found: Records
    outcomes: Mapping[str, Outcome]  # of the claims that could be judged
    say: Callable[[str], None]

    def gates(self, *kinds: str) -> list[Gate]:
        return [gate for gate in CLAIMS if gate.id in self.outcomes and (not kinds or gate.kind in kinds)]

    def judge(
        self,
        name: str,
        gates: Sequence[Gate],
        *,
        number: int = 0,  # of the draw, where several twins of this name are made
        checkpoint: Checkpoint | None = None,
        text: Calibration | None = None,
        **settings: Any,
    ) -> dict[str, Run]:
        """These gates on a twin, or on the model with other settings; claim id → run."""
        if not gates:
            return {}
        if not number:
            self.say(f"{self.checkpoint.name}: control {name}")
        only = sorted({gate.analysis for gate in gates})
        changed = replace(self.settings, **settings)
        found = records_of(checkpoint or self.checkpoint, text or self.text, changed, only)
        return {gate.id: run_of(gate, found, name=name, seed=number) for gate in gates}


def run_of(gate: Gate, found: Records, *, name: str, seed: int = 0) -> Run:
    outcome = evaluate(gate, found)
    return Run(
        name=name,
        seed=seed,
        status=outcome.status,
        observed=tuple(finding.observed for finding in outcome.findings),
        where=outcome.findings[0].where,
    )


def controls(
    checkpoint: Checkpoint,
    text: Calibration,
    settings: Settings,
    found: Records,
    *,
    parts: Sequence[str] = PARTS,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The content of `controls.json`: claim id → {control, coordinates, noise}, each an Evidence or None.

    Parameters
    ----------
    found : the records of the model itself, made with the same text and settings.
    parts : which of PARTS to run. Without "noise", coordinates are allowed rounding alone.
    """
    outcomes = {gate.id: evaluate(gate, found) for gate in CLAIMS if gate.analysis in found}
    outcomes = {claim: o for claim, o in outcomes.items() if o.status in ("pass", "fail", "inconclusive")}
    subject = Subject(checkpoint, text, settings, found, outcomes, say)
    control, moved, band = {}, {}, {}
    if "class" in parts:
        control = twinned(subject) | absence(subject) | schedule(subject)
    if "noise" in parts:
        band = noise(subject)
    if "coordinates" in parts:
        moved = coordinates(subject, band)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": checkpoint.name,
        "claims": {
            claim: {"control": control.get(claim), "coordinates": moved.get(claim), "noise": band.get(claim)}
            for claim in outcomes
        },
    }


# --- by class of claim --------------------------------------------------------------------------


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
    return bool(FORWARD & {gate.analysis, *NEEDS.get(gate.analysis, ())})


def _pass_counts(runs: Sequence[Run]) -> dict[str, tuple[int, int]]:
    """Kind → (passes, runs)."""
    total, passed = Counter(run.name for run in runs), Counter(run.name for run in runs if run.status == "pass")
    return {kind: (passed[kind], count) for kind, count in total.items()}


# --- of every claim -----------------------------------------------------------------------------


def noise(subject: Subject) -> dict[str, Evidence]:
    """How far each claim's number moves under what ought not to matter."""
    gates = subject.gates()
    reading = [gate for gate in gates if needs_forward(gate)]
    weighing = [gate for gate in gates if not needs_forward(gate)]
    settings = subject.settings
    perturbed = [subject.judge("another seed", gates, seed=settings.seed + 1)]
    if not REROUNDED.undefined(subject.checkpoint):
        twin = REROUNDED.apply(subject.checkpoint, settings.seed)
        perturbed.append(subject.judge(REROUNDED.name, weighing, checkpoint=twin))
    if reading:
        other = "float32" if settings.dtype == "bfloat16" else "bfloat16"
        perturbed.append(subject.judge(other, reading, dtype=other))
        other = "eager" if settings.attention == "sdpa" else "sdpa"
        perturbed.append(subject.judge(f"{other} attention", reading, attention=other))
        with _threads(1 if torch.get_num_threads() > 1 else 2) as count:
            perturbed.append(subject.judge(f"threads: {count}", reading))
        for i in range(WINDOWS):
            perturbed.append(subject.judge(f"text without quarter {i + 1}", reading, text=window(subject.text, i)))
    return {
        gate.id: _noise(subject.outcomes[gate.id], [found[gate.id] for found in perturbed if gate.id in found])
        for gate in gates
    }


def _noise(outcome: Outcome, runs: Sequence[Run]) -> Evidence:
    """The bands of all the gate's numbers; a pass needs every margin outside its band, a failure one that fails so."""
    moved = [
        {run.name: abs(run.observed[i] - finding.observed) for run in runs if run.observed[i] is not None}
        if finding.observed is not None
        else {}
        for i, finding in enumerate(outcome.findings)
    ]
    bands = tuple(max(by.values(), default=None) for by in moved)
    base = outcome.findings[0]
    if bands[0] is None:
        return Evidence(answer="not defined", detail="the number could not be had again", runs=tuple(runs), bands=bands)
    worst = max(moved[0], key=moved[0].__getitem__)
    told = f"the number moves by {bands[0]:.2g} at most ({worst}), its margin is {abs(base.margin):.2g}"
    # The margins that the answer rests on: all of a pass, those outside the limit of a failure.
    decisive = [
        (abs(finding.margin), band or 0.0)
        for finding, band in zip(outcome.findings, bands, strict=True)
        if finding.margin is not None and (outcome.status != "fail" or finding.status == "fail")
    ]
    clear = [margin > band for margin, band in decisive]
    within = not (any(clear) if outcome.status == "fail" else all(clear))
    opposite = {"pass": "fail", "fail": "pass"}.get(outcome.status)
    if other := next((run for run in runs if _winner_changed(outcome, run)), None):
        told = f"{other.name} makes {other.where} the winner in place of {base.where}; {told}"
    if turned := next((run for run in runs if run.status == opposite), None):
        told = f"{turned.name} turns the answer round; {told}"
    answer = WITHIN_NOISE if turned or other or within else "stable"
    return Evidence(answer=answer, detail=told, runs=tuple(runs), bands=bands)


def coordinates(subject: Subject, noise: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """The same model in other parameters: answer, winner and number must stay, the number within its noise band."""
    band = {claim: evidence.bands[0] or 0.0 for claim, evidence in noise.items()}
    runs: dict[str, list[Run]] = {claim: [] for claim in subject.outcomes}
    if reason := SCRAMBLE.undefined(subject.checkpoint):
        return {claim: Evidence(answer="not defined", detail=reason) for claim in runs}
    twins = [(SCRAMBLE, i) for i in range(SCRAMBLES)]
    if not RAMP_INPUT_GAIN.undefined(subject.checkpoint):
        twins.append((RAMP_INPUT_GAIN, 0))
    for change, i in twins:
        twin = change.apply(subject.checkpoint, subject.settings.seed + i)
        for claim, run in subject.judge(change.name, subject.gates(), number=i, checkpoint=twin).items():
            runs[claim].append(run)
    return {claim: _coordinates(subject.outcomes[claim], own, band.get(claim, 0.0)) for claim, own in runs.items()}


def _coordinates(outcome: Outcome, runs: Sequence[Run], band: float) -> Evidence:
    base = outcome.findings[0]
    if base.observed is None:
        return Evidence(answer="not defined", detail="there is no number to compare", runs=tuple(runs))
    allowed = max(band, ROUNDING * max(1.0, abs(base.observed)))
    for run in runs:
        value = run.observed[0]
        if value is None:
            told = f"the number is undefined after {run.name}"
        elif run.status != outcome.status:
            told = f"{run.name} turns {outcome.status} into {run.status}: {base.observed:.3g} becomes {value:.3g}"
        elif _winner_changed(outcome, run):
            told = f"{run.name} makes {run.where} the winner in place of {base.where}"
        elif math.copysign(1, value) != math.copysign(1, base.observed) and abs(value - base.observed) > allowed:
            told = f"{run.name} changes the sign: {base.observed:.3g} becomes {value:.3g}"
        elif abs(value - base.observed) > allowed:
            told = f"{run.name} moves {base.observed:.4g} to {value:.4g}, beyond the noise band of {allowed:.2g}"
        else:
            continue
        return Evidence(answer=CHANGES, detail=told, runs=tuple(runs))
    most = max((abs(run.observed[0] - base.observed) for run in runs), default=0.0)
    return Evidence(answer="stable", detail=f"the number moves by {most:.2g} at most", runs=tuple(runs))


def _winner_changed(outcome: Outcome, run: Run) -> bool:
    """Whether another form or descriptor won. A worst family is no winner: which one it is decides nothing."""
    return outcome.kind in ("schedule", "association") and run.where != outcome.findings[0].where


def window(text: Calibration, number: int) -> Calibration:
    """The calibration text without one of its quarters: every fourth prompt, or a quarter of a stream."""
    if text.stream:
        whole, quarter = text.texts[0], len(text.texts[0]) // WINDOWS
        texts: tuple[str, ...] = (whole[: number * quarter] + whole[(number + 1) * quarter :],)
    else:
        texts = tuple(prompt for i, prompt in enumerate(text.texts) if i % WINDOWS != number)
    return replace(text, name=f"{text.name} without quarter {number + 1}", texts=texts)


@contextmanager
def _threads(count: int) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)
