"""Numerical rounding: how far a claim's numbers move under what must not matter.

Precision, attention implementation, number of threads, and the weights rounded once more. The sampling of layers,
heads and prompts is another matter: it is in the intervals.
"""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from checks.claims.gate import Gate, Outcome
from checks.claims.verdicts import WITHIN_ROUNDING
from checks.controls.steps import PASS
from checks.controls.subject import Evidence, Run, Subject, needs_forward
from checks.machine.threads import threads
from checks.twins.roles import Role
from checks.twins.twins import Twin, TwinCheckpoint

REPEATS = 1 + 4 * PASS  # counts at most
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
    """How far rounding moves each claim's numbers.

    What a pass could round otherwise is changed all at once. Of the claims that this leaves unclear each change is made
    by itself too, so that the page can name the one that matters.
    """
    gates = subject.gates()
    reading = [gate for gate in gates if needs_forward(gate)]
    weighing = [gate for gate in gates if not needs_forward(gate)]
    runs: dict[str, list[Run]] = {gate.id: [] for gate in gates}
    if not REROUNDED.undefined(subject.checkpoint):
        twin = REROUNDED.apply(subject.checkpoint, subject.settings.seed)
        _join(runs, subject.judge(REROUNDED.name, weighing, checkpoint=twin))
    changes = _changes(subject)
    _join(runs, _passed(subject, reading, changes))
    unclear = [gate for gate in reading if _band(subject.outcomes[gate.id], runs[gate.id]).answer == WITHIN_ROUNDING]
    for name, differing in changes.items():
        _join(runs, _passed(subject, unclear, {name: differing}))
    return {gate.id: _band(subject.outcomes[gate.id], runs[gate.id]) for gate in gates}


def _changes(subject: Subject) -> dict[str, dict[str, Any]]:
    """What a pass could round otherwise: name → the setting, or the number of threads, that differs."""
    dtype = "float32" if subject.settings.dtype == "bfloat16" else "bfloat16"
    attention = "eager" if subject.settings.attention == "sdpa" else "sdpa"
    count = 1 if torch.get_num_threads() > 1 else 2
    return {
        dtype: {"dtype": dtype},
        f"{attention} attention": {"attention": attention},
        "one thread" if count == 1 else f"{count} threads": {"threads": count},
    }


def _passed(subject: Subject, gates: Sequence[Gate], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Run]:
    """These gates on a pass with all of these changes; claim id → run."""
    settings = dict(ChainMap(*changes.values()))
    with threads(settings.pop("threads", torch.get_num_threads())):
        return subject.judge(", ".join(changes), gates, **settings)


def _join(runs: dict[str, list[Run]], more: Mapping[str, Run]) -> None:
    for claim, run in more.items():
        runs[claim].append(run)


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
    worst, *less = sorted(moved[0], key=moved[0].__getitem__, reverse=True)
    told = f"rounding moves it by {bands[0]:.2g} at most ({worst}"
    told += f"; {less[0]} alone by {moved[0][less[0]]:.2g})" if less else ")"
    told += f"; its margin is {abs(outcome.findings[0].margin):.2g}"
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
