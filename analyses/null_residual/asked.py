"""What of the comparison is made, by the metrics that are asked for.

A twin is judged by a few metrics: of its comparison, what these read is made, and none of the chance levels that a
record of a model has beside them.
"""

from collections.abc import Collection

from analyses.forward.inputs import Inputs, Settings
from analyses.null_residual.grams import GRAMS, READS

PARTS = ("entries", "matching", "grams")
"""What is compared: matrices entry by entry, their matched neurons and heads, what layers read and write."""

MODES = ("first_mode_standardised", "first_mode_above_parallel")
INVARIANT_MODES = ("invariant_first_mode", "invariant_first_mode_walk_p")
RANKS = ("worst_eff_rank_ratio", "read_write_rank_ratio")  # metrics that need spectra

METRICS = {
    "matching": ("worst_median_abs_cos_matched",),
    "grams": ("read_alignment", "read_channel_r", "read_write_rank_ratio", *INVARIANT_MODES),
    "entries": (
        *("worst_median_abs_cos", "worst_median_cos_sq", "worst_eff_rank_ratio", "worst_gain_pearson", "worst_gain_z"),
        *MODES,
    ),
}
"""Part of the comparison → the metrics that need it; scales of stored families come with the entries."""

_READ = {"read_alignment": READS, "read_channel_r": READS[:2], "read_write_rank_ratio": GRAMS}


def any_of(names: Collection[str], asked: Collection[str] | None) -> bool:
    """Whether one of these metrics is asked for; None: all are."""
    return asked is None or not set(names).isdisjoint(asked)


def kinds_read(asked: Collection[str] | None) -> tuple[str, ...]:
    """The names in GRAMS that the metrics asked for read."""
    if asked is None:
        return GRAMS
    read = {kind for metric, kinds in _READ.items() if metric in asked for kind in kinds}
    return tuple(kind for kind in GRAMS if kind in read)


def compared_parts(settings: Settings) -> tuple[str, ...]:
    """Of PARTS, what the settings leave: without spectra and matching, the published statistics alone."""
    if settings.matching != "none":
        return PARTS
    return PARTS[:1] if settings.spectra == "none" else tuple(part for part in PARTS if part != "matching")


def asked_parts(inputs: Inputs) -> list[str]:
    """Of these, what the metrics and the other analyses that are asked for need."""
    parts = [part for part in compared_parts(inputs.settings) if inputs.asks(*METRICS[part])]
    for scales, part in (("invariant_scales", "grams"), ("scales", "entries")):
        if inputs.needs(scales) and part not in parts:
            parts.append(part)
    return parts
