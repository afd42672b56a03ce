"""Stability of an answer under changes that ought not to matter.

*Noise*: precision, attention implementation, threads, seeds and windows of the text. *Coordinates*:
exact changes of parameters, which leave the model's function alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from analyses.forward.calibration import Calibration
from checks.claims.gate import Outcome
from checks.claims.verdicts import CHANGES, WITHIN_NOISE
from checks.controls.by_class import needs_forward
from checks.controls.subject import Evidence, Run, Subject
from checks.machine.threads import threads
from checks.maps.catalogue import RAMP_INPUT_GAIN, SCRAMBLE
from checks.twins.roles import Role
from checks.twins.twins import Twin, TwinCheckpoint

SCRAMBLES = 2  # drawn scrambles of the coordinates
WINDOWS = 4  # of the calibration text, each leaving out another quarter
ROUNDING = 1e-9  # relative; float64 statistics of exactly equal models agree to this
HALF_UNIT = 2.0**-9  # relative half unit in the last place of bfloat16

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
        with threads(1 if torch.get_num_threads() > 1 else 2) as count:
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
