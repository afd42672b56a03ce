"""A claim judged again on something that is not the model: on a twin, under other settings, on a surrogate.

A twin is measured by the very same analyses, in memory, and judged by the very same gates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analyses import registry
from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.run.suite import records_of
from analyses.weights.checkpoint import Checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import Gate, Outcome, Status, evaluate

WEIGHTS = tuple(name for name in registry.NAMES if name not in registry.FORWARD and not registry.reads(name))
"""Analyses that read nothing but weights, so that no setting of the forward pass moves them."""

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
        checkpoint, text = checkpoint or self.checkpoint, text or self.text
        changed = replace(self.settings, claimed_only=True, **settings)
        if not any(gate.spectra for gate in gates):
            changed = replace(changed, spectra="none")
        only = sorted({gate.analysis for gate in gates})
        reading = [gate.families for gate in gates if "null_residual" in (gate.analysis, *registry.reads(gate.analysis))]
        known: Records = {}
        if checkpoint is self.checkpoint and changed.seed == self.settings.seed:
            known = {name: self.found[name] for name in WEIGHTS if name in self.found}
        elif reading and all(reading):  # the costly analysis is spared the families that no claim here reads
            spared = replace(changed, families=tuple(sorted(set().union(*reading))))
            known = records_of(checkpoint, text, spared, ["null_residual"])
        found = records_of(checkpoint, text, changed, only, known=known)
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
