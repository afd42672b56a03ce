"""A claim judged again on something that is not the model: a twin, other settings, a surrogate track.

A twin is measured by the very same analyses, in memory, and judged by the very same gates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analyses import registry
from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.run.suite import records_of
from analyses.weights.checkpoint import Checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import Gate, Outcome, Status, evaluate
from checks.controls.steps import Steps
from checks.maps import remeasured
from checks.own.gates import PART, with_own
from checks.own.statement import Statement
from checks.twins.twins import kept

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
    findings: tuple[Status, ...] = ()  # per condition of the gate, whatever the sample's size says


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One of a claim's answers, with what it rests on."""

    answer: str
    detail: str
    runs: tuple[Run, ...] = ()
    p: Mapping[str, float] | None = None  # kind of twin → share of them at least as extreme as the model
    bands: tuple[float | None, ...] = ()  # noise only: how far each number of the gate moved at most


@dataclass(frozen=True, slots=True)
class Subject:
    """The model under control: its checkpoint, text and settings, and the records measured from it."""

    checkpoint: Checkpoint
    text: Calibration
    settings: Settings
    found: Records
    outcomes: Mapping[str, Outcome]  # of the rows about the model that could be judged
    say: Callable[[str], None]
    asked: Sequence[Gate] = CLAIMS
    own: Sequence[Statement] = ()  # claims among them that are not built in
    steps: Steps = field(default_factory=Steps)

    def gates(self, *kinds: str, status: Status | None = None) -> list[Gate]:
        """The rows about the model, of these kinds and with this answer; of all where none is given."""
        return [
            gate
            for gate in self.asked
            if gate.id in self.outcomes
            and (not kinds or gate.kind in kinds)
            and (status is None or self.outcomes[gate.id].status == status)
        ]

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
        """These gates on a twin, or on the model with other settings; claim id → run.

        Only what these gates read is measured: the analyses of their conditions, the families and the spectra. A twin
        runs with fused attention where its class has it: no claim reads the probabilities that only the eager function
        shows, and on twins of the reference model HE2's correlation moves by 4e-7 at most, the rounding of float32.
        """
        if not gates:
            return {}
        if not number:
            self.say(f"{self.checkpoint.name}: control {name}")
        checkpoint, text = kept(checkpoint or self.checkpoint), text or self.text
        if checkpoint.altered:
            settings.setdefault("attention", "sdpa")
        changed = replace(self.settings, claimed=claimed(gates), **settings)
        only = sorted({analysis for gate in gates for analysis in gate.reads})
        known: Records = {}
        if checkpoint is self.checkpoint:
            known = {name: self.found[name] for name in WEIGHTS if name in self.found}
        found = with_own(records_of(checkpoint, text, changed, only, known=known), self.own)
        self.steps.step(any(map(needs_forward, gates)))
        return {gate.id: run_of(gate, found, name=name, seed=number) for gate in gates}


def claimed(gates: Sequence[Gate]) -> frozenset[str]:
    """Paths of the metrics that these gates read, the powers of their tests included.

    Of an analysis whose record another one reads, that part; of one that a claim that is not built in reduces,
    everything.
    """
    paths = [path for gate in gates for c in gate.conditions for path in (c.path, c.power) if path]
    whole = [f"{path.partition('.')[0]}.metrics.*" for path in paths if path.split(".")[1] == PART]
    return remeasured.claimed(paths) | {*whole}


def needs_forward(gate: Gate) -> bool:
    return any(registry.reads_text(analysis) for analysis in gate.reads)


def run_of(gate: Gate, found: Records, *, name: str, seed: int = 0) -> Run:
    outcome = evaluate(gate, found)
    return Run(
        name=name,
        seed=seed,
        status=outcome.status,
        observed=tuple(finding.observed for finding in outcome.findings),
        where=outcome.findings[0].where,
        findings=tuple(finding.status for finding in outcome.findings),
    )
