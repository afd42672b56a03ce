"""What an analysis is given: the checkpoint, the settings, and what the forward pass left behind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyses.errors import InputError, one_line
from analyses.forward.probe import ForwardFacts, Probe
from analyses.progress import Tick, silent
from analyses.registry import NAMES
from analyses.weights.checkpoint import Checkpoint

HEADS = ("q_proj", "k_proj")  # what a head is measured from
RecordOf = Callable[[str], Mapping[str, Any]]


class Skipped(Exception):
    """This analysis cannot be asked of this model; the message says why."""


class NotMeasured(InputError):
    """The record of another analysis is not there; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything besides the checkpoint and the text that determines the numbers."""

    device: str = "auto"  # auto | cpu | cuda | mps
    dtype: str = "float32"  # of the forward pass; auto = as stored. Weight analyses are float64
    attention: str = "eager"  # eager | sdpa
    calibration: Path | tuple[Path, ...] | None = None  # None: the text that ships with the project
    tokens: int | None = 0  # of the text to read, see `load_calibration`; None: as many as the model's width asks for
    seed: int = 0
    only: tuple[str, ...] = NAMES
    stack: str | None = None  # of a model that has two, one of `schema.STACKS`
    layers: range | None = None  # of the weight analyses' and probes' statistics; None: all
    families: tuple[str, ...] | None = None  # that null_residual compares; None: all
    spectra: str = "auto"  # auto | exact | sampled | none, of the residuals between layers
    matching: str = "auto"  # auto: neurons and heads of adjacent layers are matched | none
    claimed: frozenset[str] | None = None  # paths of the metrics that are asked for, for twins; None: everything
    trust_remote_code: bool = False

    def asked(self, analysis: str) -> frozenset[str] | None:
        """Names of the metrics of an analysis that are asked for; None for all."""
        own = f"{analysis}.metrics."
        if self.claimed is None or f"{own}*" in self.claimed:
            return None
        return frozenset(path.removeprefix(own) for path in self.claimed if path.startswith(own))


@dataclass(slots=True, kw_only=True)
class Passes:
    """What the forward pass left behind, or why there was none."""

    probes: Mapping[str, Probe] = field(default_factory=dict)  # analysis → the probe that the pass has fed
    facts: ForwardFacts | None = None
    seconds: float = 0.0
    skipped: str | None = None
    failure: Exception | None = None
    parts: Mapping[str, Callable[[range], Any]] = field(default_factory=dict)  # analysis → shards made elsewhere

    def failed(self, name: str) -> str:
        """Why the pass, or an analysis' probe of it, failed; "" where neither did."""
        probe = self.probes.get(name)
        error = self.failure or (probe.failure if probe else None)
        return f"the forward pass failed: {one_line(error)}" if error else ""

    def require(self) -> None:
        """Raise what kept the pass from running, if anything did."""
        if self.failure:
            raise self.failure
        if self.skipped:
            raise Skipped(self.skipped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the function `analyse` of every analysis takes."""

    name: str  # of the analysis
    checkpoint: Checkpoint  # restricted to what the settings ask for
    settings: Settings
    passes: Passes
    record_of: RecordOf  # another analysis' plain record; raises Skipped or NotMeasured if it has none
    tick: Tick = silent

    @property
    def device(self) -> str:
        return arithmetic_device(self.settings)

    def asks(self, *metrics: str) -> bool:
        """Whether any of these metrics of the analysis is asked for."""
        return self.asked is None or not self.asked.isdisjoint(metrics)

    @property
    def asked(self) -> frozenset[str] | None:
        """Names of the metrics of this analysis that are asked for; None for all."""
        return self.settings.asked(self.name)

    def needs(self, part: str) -> bool:
        """Whether another analysis that is asked for reads this part of the record."""
        claimed = self.settings.claimed
        return claimed is not None and f"{self.name}.{part}" in claimed

    def over_depth(self, values: Sequence[Any] | None) -> list[Any] | None:
        """A list over the layers that have heads, as records of heads have it, over all layers; None in the others."""
        with_heads = self.checkpoint.layers_with(*HEADS)
        if values is None or len(with_heads) == self.checkpoint.shape.layers:
            return values
        at = dict(zip(with_heads, values, strict=True))
        return [at.get(layer) for layer in range(self.checkpoint.shape.layers)]

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def shard_of(self) -> Callable[[range], Any] | None:
        """Gives the shards of this analysis that were measured elsewhere, where there are any."""
        return self.passes.parts.get(self.name)


def arithmetic_device(settings: Settings) -> str:
    """Where float64 is computed: mps has none."""
    return "cpu" if settings.device == "mps" else settings.device
