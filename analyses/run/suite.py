"""The six analyses of one checkpoint, sharing one forward pass: what `measure` keeps and controls repeat."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from analyses import attention_stats, delta_svd, head_geometry, head_grams, null_residual, records, schedule_fit
from analyses.errors import InputError
from analyses.forward.calibration import Calibration
from analyses.forward.probe import ForwardFacts, NoTokenizer, Probe, Ticking, Window
from analyses.forward.tokens import require_tokenizer
from analyses.progress import Tick, silent
from analyses.weights.checkpoint import Checkpoint
from checks.maps import invariance

NEEDS = {"schedule_fit": ("null_residual", "attention_stats"), "head_geometry": ("attention_stats",)}
"""Analyses that read another's record."""

FORWARD = frozenset({"attention_stats", "delta_svd"})
"""Analyses that need a forward pass."""

HEADS = ("head_grams", "attention_stats")
"""Analyses of every head's W_q and W_k."""

RecordOf = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything besides the checkpoint and the text that determines the numbers."""

    device: str = "auto"  # auto | cpu | cuda | mps
    dtype: str = "float32"  # of the forward pass; auto = as stored. Weight analyses are float64
    attention: str = "eager"  # eager | sdpa
    calibration: Path | None = None  # None: the text that ships with the project
    seed: int = 0
    only: tuple[str, ...] = records.ANALYSES
    layers: range | None = None  # of the weight analyses' and probes' statistics; None: all
    families: tuple[str, ...] | None = None  # that null_residual compares; None: all
    spectra: str = "exact"  # exact | sampled | none, of the residuals between layers
    claimed_only: bool = False  # of head_geometry's tables, the one that claims read: for twins
    trust_remote_code: bool = False


class Skipped(Exception):
    """This analysis cannot be asked of this model; the message says why."""


class NotMeasured(InputError):
    """The record of another analysis is not there; the message says what to do."""


@dataclass(slots=True, kw_only=True)
class Passes:
    """What the forward pass left behind, or why there was none."""

    attention: attention_stats.AttentionProbe | None = None
    delta: delta_svd.DeltaProbe | None = None
    facts: ForwardFacts | None = None
    seconds: float = 0.0
    skipped: str | None = None
    failure: Exception | None = None
    parts: Mapping[str, Callable[[range], Any]] = field(default_factory=dict)  # analysis → pieces made elsewhere

    def require(self) -> None:
        """Raise what kept the pass from running, if anything did."""
        if self.failure:
            raise self.failure
        if self.skipped:
            raise Skipped(self.skipped)


def forward_pass(
    checkpoint: Checkpoint, text: Calibration, settings: Settings, only: Sequence[str], tick: Tick = silent
) -> Passes:
    """Run the model once, for all the probes that these analyses need."""
    if not FORWARD & set(only):
        return Passes(skipped="no forward pass was asked for")
    record = checkpoint.architecture
    # Behind a post-norm the stream is read as it is, mean over features included.
    delta = delta_svd.DeltaProbe(
        layer_norm=record.layer_norm and not record.post_norm, branches_add=not record.post_norm
    )
    passes = Passes(
        attention=attention_stats.AttentionProbe() if "attention_stats" in only else None,
        delta=delta if "delta_svd" in only else None,
    )
    start = time.perf_counter()
    try:
        require_tokenizer(checkpoint)
        from analyses.forward import (
            instrumented,  # only here: it imports the library, which weight analyses need not wait for
        )

        passes.facts = instrumented.run(
            checkpoint,
            text,
            [
                *_windows(checkpoint, settings, [p for p in (passes.attention, passes.delta) if p is not None]),
                Ticking(tick, depth=checkpoint.shape.layers),
            ],
            dtype=settings.dtype,
            device=settings.device,
            attention=settings.attention,
            trust_remote_code=settings.trust_remote_code,
        )
    except NoTokenizer as error:
        passes.skipped = str(error)
    except Exception as error:  # the weight analyses must still run; their askers raise it again
        passes.failure = error
    passes.seconds = time.perf_counter() - start
    return passes


def _windows(checkpoint: Checkpoint, settings: Settings, probes: Sequence[Probe]) -> Sequence[Probe]:
    """The probes, shown only the layers that the settings ask for."""
    if settings.layers is None:
        return probes
    return [Window(probe, settings.layers, depth=checkpoint.shape.layers) for probe in probes]


def analyse(
    name: str,
    checkpoint: Checkpoint,
    passes: Passes,
    settings: Settings,
    record_of: RecordOf,
    tick: Tick = silent,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Run one analysis: (plain record, arrays for the safetensors file beside it).

    Parameters
    ----------
    record_of : gives the plain record of an analysis that this one NEEDS; raises Skipped or NotMeasured if it has none.

    Raises
    ------
    Skipped : where the model cannot be asked; anything else is a failure of the analysis.
    """
    record, arrays = _measure(name, checkpoint, passes, settings, record_of, tick)
    table = invariance.table(name, checkpoint)
    plain = records.plain(record)
    notes = plain["notes"] + _chosen(name, checkpoint, settings)
    return plain | {"invariance": table, "notes": notes}, arrays


def _chosen(name: str, checkpoint: Checkpoint, settings: Settings) -> list[str]:
    """What the filters left of the model, as sentences for the page."""
    notes = []
    if (layers := settings.layers) is not None:
        notes.append(
            f"Of {checkpoint.shape.layers} layers, {layers.start} to {layers.stop - 1} were measured; "
            f"layer 0 of this record is layer {layers.start} of the model."
        )
    if settings.families and name in ("null_residual", "schedule_fit"):
        notes.append(f"Only {', '.join(settings.families)} were measured: the worst family is the worst of these.")
    return notes


def _measure(
    name: str, checkpoint: Checkpoint, passes: Passes, settings: Settings, record_of: RecordOf, tick: Tick
) -> tuple[Any, dict[str, torch.Tensor]]:
    seed, device, part = settings.seed, arithmetic_device(settings), passes.parts.get(name)
    checkpoint = seen_by(name, checkpoint, settings)
    match name:
        case "null_residual":
            record = null_residual.measure(
                checkpoint, seed=seed, device=device, spectra=settings.spectra, part=part, tick=tick
            )
            return record, {}
        case "head_grams":
            return head_grams.measure(checkpoint, seed=seed, device=device, part=part, tick=tick)
        case "attention_stats":
            if passes.failure:
                raise passes.failure
            probe = passes.attention if passes.facts else None
            why = passes.skipped or ""
            record = attention_stats.measure(
                checkpoint, probe, passes.facts, seed=seed, device=device, no_forward=why, tick=tick
            )
            return record, {}
        case "schedule_fit":
            return _schedule_fit(record_of, seed), {}
        case "head_geometry":
            attention = record_of("attention_stats")
            return head_geometry.measure(attention, seed=seed, claimed_only=settings.claimed_only), {}
        case "delta_svd":
            passes.require()
            return delta_svd.measure(checkpoint, passes.delta, passes.facts, seed=seed, device=device)
    raise ValueError(f"no analysis {name}")


def seen_by(name: str, checkpoint: Checkpoint, settings: Settings) -> Checkpoint:
    """What the settings let an analysis see of a checkpoint; raises Skipped where that is too little."""
    if name in HEADS and settings.families and (missing := sorted({"q_proj", "k_proj"} - set(settings.families))):
        raise Skipped(f"heads are measured from q_proj and k_proj, and {', '.join(missing)} was left out")
    families = settings.families if name == "null_residual" else None
    return checkpoint.restricted(layers=settings.layers, families=families)


def arithmetic_device(settings: Settings) -> str:
    """Where float64 is computed: mps has none."""
    return "cpu" if settings.device == "mps" else settings.device


def _schedule_fit(record_of: RecordOf, seed: int) -> schedule_fit.ScheduleFit:
    weights = record_of("null_residual")
    try:
        attention = record_of("attention_stats")
        temperature, reason = attention["temperature"], attention["absent"].get("temperature", "")
        dtype = attention["dtype"]
    except (Skipped, NotMeasured) as missing:  # the gains need no forward pass
        temperature, reason, dtype = None, str(missing), weights["dtype"]
    return schedule_fit.measure(
        weights["scales"], temperature, model=weights["model"], dtype=dtype, seed=seed, no_temperature=reason
    )


def records_of(
    checkpoint: Checkpoint,
    text: Calibration,
    settings: Settings,
    only: Sequence[str],
    *,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Plain records of these analyses, and of those they need, in memory; what fails raises.

    Records in `known` are taken as they are.
    """
    known = known or {}
    wanted = set(only).union(*(NEEDS.get(name, ()) for name in only)) - set(known)
    passes = forward_pass(checkpoint, text, settings, tuple(wanted))
    found: dict[str, Any] = dict(known)
    for name in records.ANALYSES:
        if name in wanted:
            found[name], _ = analyse(name, checkpoint, passes, settings, found.__getitem__)
    return found
