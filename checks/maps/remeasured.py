"""The numbers of a record, found again on a twin that computes the same.

A number of the weights is float64 already. One that needs a forward pass is measured in float64 throughout, since the
rounding of a float32 pass, which an exact map shuffles, hides changes below 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

from analyses import registry
from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Passes, Settings, Skipped
from analyses.numerics import intervals
from analyses.run import suite
from analyses.weights.checkpoint import Checkpoint
from checks.maps.precision import NeverNarrowed

Records = Mapping[str, Mapping[str, Any]]
SPECTRAL = ("eff_rank", "rank_ratio")  # in the name of a statistic of null_residual that needs spectra
EVERY = 4  # of how many prompts one is read: what stays does so on any text


def needs_pass(path: str) -> bool:
    """Whether a statistic, "analysis.…", rests on a forward pass."""
    return registry.reads_text(path.partition(".")[0])


def read(found: Records, path: str) -> float | None:
    """The number at "analysis.word.word", or its `value` where it is a metric; None where there is none."""
    node: Any = found
    for word in path.split("."):
        node = node.get(word) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping):
        node = node.get("value")
    return None if node is None else float(node)


def sampled(text: Calibration) -> Calibration:
    """Every fourth prompt, or the first quarter of a stream."""
    if text.stream:
        whole = text.texts[0]
        return replace(text, name=f"{text.name}, a quarter", texts=(whole[: -(-len(whole) // EVERY)],), tokens=0)
    some = {"texts": text.texts[::EVERY], "ids": text.ids[::EVERY], "tokens": text.tokens // EVERY}
    return replace(text, name=f"{text.name}, every fourth prompt", **some)


def lean(settings: Settings, paths: Sequence[str]) -> Settings:
    """The settings without what these statistics do not need."""
    spectra = settings.spectra if any(word in path for path in paths for word in SPECTRAL) else "none"
    return replace(settings, claimed=claimed(paths), spectra=spectra)


READ: Mapping[str, tuple[str, ...]] = {
    "head_geometry.": ("attention_stats.dynamic",),
    "residual_stream.": ("residual_stream.absent",),
    "residual_stream.metrics.massive_sink": ("attention_stats.dynamic",),
    "residual_stream.metrics.plateau_rho": ("attention_stats.dynamic",),
    "schedule_fit.": ("null_residual.absent",),
    "schedule_fit.metrics.input_gain": ("null_residual.scales",),
    "schedule_fit.metrics.published": ("null_residual.scales",),
    "schedule_fit.metrics.invariant_scale": ("null_residual.invariant_scales",),
    "schedule_fit.metrics.measured": ("attention_stats.temperature",),
    "schedule_fit.metrics.write_sigma1": ("delta_svd.layers",),
}
"""Beginning of a statistic's path → what it is made of in the records of other analyses."""


def claimed(paths: Sequence[str]) -> frozenset[str]:
    """These statistics, and what they are made of in other analyses' records; all metrics where READ says nothing."""
    found = set(paths)
    for path in paths:
        parts = [part for head, of in READ.items() if path.startswith(head) for part in of]
        found |= {*(parts or [f"{name}.metrics.*" for name in registry.reads(path.partition(".")[0])])}
    return frozenset(found)


def analyses_of(paths: Sequence[str]) -> tuple[str, ...]:
    """The analyses that these statistics need, in the order in which they run."""
    named = {path.partition(".")[0] for path in claimed(paths)}
    return tuple(name for name in registry.NAMES if name in named)


def records(checkpoint: Checkpoint, passes: Passes, settings: Settings, wanted: Sequence[str]) -> Records:
    """Plain records of these analyses, without those that the model cannot be asked for."""
    found: dict[str, Any] = {}

    def record_of(name: str) -> Mapping[str, Any]:
        if name not in found:
            raise Skipped(f"{name} could not be measured")
        return found[name]

    for name in wanted:
        with suppress(Skipped), intervals.left_out():  # numbers are compared, not judged
            found[name], _ = suite.analyse(name, checkpoint, passes, settings, record_of)
    return found


def exactly(checkpoint: Checkpoint, text: Calibration, settings: Settings, paths: Sequence[str]) -> Records:
    """Records of the analyses that these statistics need; their forward pass is float64, on a quarter of the text."""
    wanted, settings = analyses_of(paths), replace(lean(settings, paths), dtype="float64")
    with NeverNarrowed() if registry.FORWARD & set(wanted) else nullcontext():
        passes = suite.forward_pass(checkpoint, sampled(text), settings, wanted)
    return records(checkpoint, passes, settings, wanted)
