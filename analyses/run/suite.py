"""The analyses of one checkpoint, sharing one forward pass: what `measure` keeps and controls repeat."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from analyses import records, registry
from analyses.errors import LEFT_OUT, InputError, panic
from analyses.forward.calibration import Calibration
from analyses.forward.inputs import HEADS, Inputs, NotMeasured, Passes, RecordOf, Settings, Skipped
from analyses.forward.probe import NoTokenizer, Probe, Ticking, Window
from analyses.forward.tokens import require_tokenizer
from analyses.progress import Tick, silent
from analyses.weights.checkpoint import Checkpoint


def forward_pass(
    checkpoint: Checkpoint, text: Calibration, settings: Settings, only: Sequence[str], tick: Tick = silent
) -> Passes:
    """Run the model once, for all the probes that these analyses need."""
    if not registry.FORWARD & set(only):
        return Passes(skipped="no forward pass was asked for")
    if checkpoint.no_pass:
        return Passes(skipped=f"no text is run through this model: {checkpoint.no_pass}")
    probes = {name: registry.row(name).probe()(checkpoint) for name in only if name in registry.FORWARD}
    passes = Passes(probes=probes)
    for name, probe in probes.items():
        probe.asked = settings.asked(name)
    start = time.perf_counter()
    try:
        if not text.ids:
            require_tokenizer(checkpoint)
        from analyses.forward import instrumented  # here: it imports the library, which weights need not wait for

        passes.facts = instrumented.run(
            checkpoint,
            text,
            [
                *_windows(checkpoint, settings, probes),
                Ticking(tick, depth=checkpoint.shape.layers),
            ],
            dtype=settings.dtype,
            device=settings.device,
            attention=settings.attention,
            trust_remote_code=settings.trust_remote_code,
        )
    except NoTokenizer as error:
        passes.skipped = str(error)
    except BaseException as error:  # the weight analyses must still run; their askers raise it again
        if not isinstance(error, Exception):
            error = panic(error)  # of a library in another language
        passes.failure = error
    passes.seconds = time.perf_counter() - start
    return passes


def _windows(checkpoint: Checkpoint, settings: Settings, probes: Mapping[str, Probe]) -> Sequence[Probe]:
    """The probes, shown only the layers that the settings ask for and, of heads, those that have any."""
    depth = checkpoint.shape.layers
    asked = range(depth) if settings.layers is None else settings.layers
    heads = tuple(layer for layer in checkpoint.layers_with(*HEADS) if layer in asked)
    shown = {name: heads if registry.row(name).from_heads else tuple(asked) for name in probes}
    whole = tuple(range(depth))
    return [
        probe if shown[name] == whole else Window(probe, shown[name], depth=depth) for name, probe in probes.items()
    ]


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
    record_of : gives the plain record of an analysis that this one reads; raises Skipped or NotMeasured if it has none.

    Raises
    ------
    Skipped : where the model cannot be asked; anything else is a failure of the analysis.
    """
    inputs = Inputs(
        name=name,
        checkpoint=restricted(name, checkpoint, settings),
        settings=settings,
        passes=passes,
        record_of=record_of,
        tick=tick,
    )
    record, arrays = registry.row(name).measure()(inputs)
    plain = records.plain(record)
    plain["notes"] += _restrictions(name, checkpoint, settings)
    if incomplete := _incomplete(name, passes, record_of):
        plain["incomplete"] = incomplete
    return plain, arrays


def _incomplete(name: str, passes: Passes, record_of: RecordOf) -> str:
    """Why the part of a record that rests on the forward pass is missing, though the model could be asked."""
    if name in registry.FORWARD:
        return passes.failed(name)
    for needed in registry.reads(name):
        try:
            if why := record_of(needed).get("incomplete"):
                return why
        except (Skipped, NotMeasured):
            continue
    return ""


def _restrictions(name: str, checkpoint: Checkpoint, settings: Settings) -> list[str]:
    """What the filters left of the model, as sentences for the page."""
    notes = []
    if (layers := settings.layers) is not None:
        notes.append(
            f"Of {checkpoint.shape.layers} layers, {layers.start} to {layers.stop - 1} were measured; "
            f"layer 0 of this record is layer {layers.start} of the model."
        )
    view = checkpoint.restricted(layers=settings.layers)
    heads = view.layers_with(*HEADS)
    if registry.row(name).from_heads and len(heads) < view.shape.layers:
        numbers = ", ".join(str(view.number(layer)) for layer in heads)
        notes.append(
            f"Heads are in {len(heads)} of {view.shape.layers} layers and compared with those of the next layer that "
            f"has any; the layers of this record, from 0 on, are layers {numbers} of the model."
        )
    if settings.families and name in ("null_residual", "schedule_fit"):
        notes.append(f"Only {', '.join(settings.families)} were measured: the worst family is the worst of these.")
    return notes


def restricted(name: str, checkpoint: Checkpoint, settings: Settings) -> Checkpoint:
    """What the settings let an analysis see of a checkpoint; raises Skipped where that is too little."""
    row = registry.row(name)
    if row.from_heads and settings.families and (missing := sorted({"q_proj", "k_proj"} - set(settings.families))):
        raise Skipped(f"heads are measured from q_proj and k_proj, and {', '.join(missing)} was {LEFT_OUT}")
    view = checkpoint.restricted(layers=settings.layers, families=settings.families if row.by_family else None)
    if not row.from_heads or not view.others:
        return view
    if len(heads := view.layers_with(*HEADS)) < 2:
        kind = next(view.why_not(HEADS[0], layer) for layer in range(view.shape.layers) if layer not in heads)
        raise Skipped(f"heads are compared between layers, and {len(heads)} of these have any: {kind}")
    return view.view(heads)


def records_of(
    checkpoint: Checkpoint,
    text: Calibration,
    settings: Settings,
    only: Sequence[str],
    *,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Plain records of these analyses, and of those they read, in memory; what fails raises.

    Records in `known` are taken as they are. Where only some metrics are asked for, only the analyses whose records
    these need are made.
    """
    found: dict[str, Any] = dict(known or {})
    wanted = registry.with_read(only)
    if settings.claimed is not None:
        named = {path.partition(".")[0] for path in settings.claimed}
        wanted = tuple(name for name in wanted if name in named)

    def record_of(name: str) -> Mapping[str, Any]:
        if name not in found:
            raise NotMeasured(f"{name} was not asked for")
        return found[name]

    missing = [name for name in wanted if name not in found]
    passes = forward_pass(checkpoint, text, settings, missing)
    for name in missing:
        found[name], _ = analyse(name, checkpoint, passes, settings, record_of)
        if why := records.failed(found[name]):
            raise InputError(f"{name}: {why}")
    return found
