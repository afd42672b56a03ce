"""Numerical rounding: how far a claim's numbers move under what must not matter.

Precision, attention implementation, number of threads, and the weights rounded once more. The sampling of layers,
heads and prompts is another matter: it is in the intervals.
"""

from collections.abc import Sequence

import torch

from checks.claims.gate import Outcome
from checks.claims.verdicts import WITHIN_ROUNDING
from checks.controls.steps import PASS
from checks.controls.subject import Evidence, Run, Subject, needs_forward
from checks.machine.threads import threads
from checks.twins.roles import Role
from checks.twins.twins import Twin, TwinCheckpoint

REPEATS = 1 + 3 * PASS  # counts at most
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


def rounding(subject: Subject) -> dict[str, Evidence]:
    """How far rounding moves each claim's numbers."""
    gates = subject.gates()
    reading = [gate for gate in gates if needs_forward(gate)]
    weighing = [gate for gate in gates if not needs_forward(gate)]
    settings = subject.settings
    perturbed = []
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
    return {
        gate.id: _band(subject.outcomes[gate.id], [runs[gate.id] for runs in perturbed if gate.id in runs])
        for gate in gates
    }


def _band(outcome: Outcome, runs: Sequence[Run]) -> Evidence:
    """The bands of all the gate's numbers; a pass needs every margin outside its band, a failure one that fails so."""
    moved = [
        {run.name: abs(run.observed[i] - finding.observed) for run in runs if run.observed[i] is not None}
        if finding.observed is not None
        else {}
        for i, finding in enumerate(outcome.findings)
    ]
    bands = tuple(max(by.values(), default=None) for by in moved)
    if bands[0] is None:
        return Evidence(answer="not defined", detail="the number could not be had again", runs=tuple(runs), bands=bands)
    worst = max(moved[0], key=moved[0].__getitem__)
    told = f"rounding moves it by {bands[0]:.2g} at most ({worst}); its margin is {abs(outcome.findings[0].margin):.2g}"
    # The margins that the answer rests on: all of a pass, those outside the limit of a failure.
    decisive = [
        (abs(finding.margin), band or 0.0)
        for finding, band in zip(outcome.findings, bands, strict=True)
        if finding.margin is not None and (outcome.status != "fail" or finding.status == "fail")
    ]
    clear = [margin > band for margin, band in decisive]
    within = not (any(clear) if outcome.status == "fail" else all(clear))
    opposite = {"pass": "fail", "fail": "pass"}.get(outcome.status)
    if turned := next((run for run in runs if run.status == opposite), None):
        told = f"{turned.name} turns the answer round; {told}"
    answer = WITHIN_ROUNDING if turned or within else "stable"
    return Evidence(answer=answer, detail=told, runs=tuple(runs), bands=bands)
