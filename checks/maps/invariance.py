"""The statistics that an exact change of parameters leaves alone, as a table.

A model's function does not fix its weights: gains can be moved into matrices, heads and neurons reordered, values and
rotary planes turned, the residual stream rotated. Every record says of its main statistics which of these maps leave
them alone, so that a reader sees whether a number speaks of the model or of one way of writing it down.

True is a promise, for every model of MODEL_TYPES on which the map is defined: the statistic stays, up to rounding and,
where the map passes through a norm that takes a scale off, up to its eps. False says that it moves, or loses its value,
for some model. A statistic with heads or layers in it is compared as the list that it is, in its order. p-values by
resampling are left out where they read what moves: those of `best_abs_r`, `within_r_signed` and the two-piece form.

Here the maps have their names only; the modules beside this one apply them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.maps.names import (
    CONSTANT,
    FOLD,
    MAPS,
    MODEL_TYPES,
    NEURONS,
    ORDER,
    PLANES,
    QUARTER_TURNS,
    QUERIES,
    QUERY_KEY,
    RAMP,
    RESCALE,
    ROTATION,
    SCALE,
    SHIFT,
    SIGNS,
    TURNS,
    VALUES,
    WRITES,
)

if TYPE_CHECKING:  # the page reads the names of the maps, and reads them without torch
    from analyses.weights.checkpoint import Checkpoint

ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation")  # keys of a config


def _turned(checkpoint: Checkpoint) -> bool:
    return checkpoint.rotary_dims(0) > 0


def _free(checkpoint: Checkpoint) -> bool:
    return checkpoint.rotary_dims(0) < checkpoint.shape.head_dim and not checkpoint.has_qk_norm


def homogeneous(checkpoint: Checkpoint) -> bool:
    """Whether the feed-forward takes factors of what its up matrix gives through to its down matrix."""
    return checkpoint.architecture.gated or "relu" in map(checkpoint.config.get, ACTIVATIONS)


NEEDS: Mapping[str, Callable[[Checkpoint], bool]] = {
    QUERY_KEY: lambda c: c.has_qk_norm,
    **dict.fromkeys((*TURNS, PLANES), _turned),
    **dict.fromkeys(QUERIES, _free),
    SHIFT: lambda c: _free(c) and bool(c.names("k_proj", 0, bias=True)),
    SIGNS: homogeneous,
    ROTATION: lambda c: not c.architecture.layer_norm and not c.architecture.further,
    CONSTANT: lambda c: c.architecture.layer_norm,
    WRITES: lambda c: "attn_out_ln" in c.architecture.further,
}
"""Map → whether it is defined for a kind of model; the others are for all of MODEL_TYPES."""


def known_maps(checkpoint: Checkpoint) -> list[str]:
    """Names of the exact maps of a checkpoint's kind of model, in the order of MAPS; none for an unknown kind."""
    if checkpoint.config.get("model_type") not in MODEL_TYPES or checkpoint.architecture.post_norm:
        return []
    return [name for name in MAPS if name not in NEEDS or NEEDS[name](checkpoint)]


@dataclass(frozen=True, slots=True)
class Moved:
    """The maps that move a statistic; all others leave it alone."""

    by: frozenset[str]  # without norms of queries and keys
    by_normalised: frozenset[str]  # with them


def moved(*by: str, only_plain: tuple[str, ...] = (), only_normalised: tuple[str, ...] = ()) -> Moved:
    return Moved(frozenset((*by, *only_plain)), frozenset((*by, *only_normalised)))


NEVER = moved()
FOLDED = (RESCALE, FOLD, ROTATION)  # change matrices channel by channel: they take up a gain of many values
# Entries of one layer against the same entries of the next: any reordering, turn or uneven factor tells. One factor
# for a whole matrix does not, nor one order of channels for the whole model.
ENTRIES = (*FOLDED, *VALUES, *TURNS, *QUERIES, SIGNS, NEURONS, *ORDER, CONSTANT)
STORED = moved(*ENTRIES, only_plain=(PLANES,), only_normalised=(QUERY_KEY,))  # norms' gains take up the planes' scales
# Under q/k norms their gains are families too, which quarter turns reorder and scales of planes stretch.
GAIN_PATTERN = moved(*FOLDED, only_normalised=(QUARTER_TURNS, PLANES))
# Frobenius norms: free wherever a factor is.
NORMS = moved(*(*FOLDED, SCALE, RAMP, *VALUES, PLANES, *QUERIES, SIGNS, CONSTANT, WRITES), only_normalised=(QUERY_KEY,))
GAIN_NORM = moved(*FOLDED, SCALE, RAMP)
# g = W_kᵀW_q of the stored matrices knows nothing of turns and scales of planes, but a gain may hide in it.
METRIC_SHAPE = moved(*FOLDED)
METRIC_BY_HEAD = moved(*FOLDED, *ORDER)
# Under q/k norms an input gain's scale stays out of the queries and keys, and each head has a scale of its own.
METRIC_SIZE = moved(*FOLDED, *ORDER, only_plain=(SCALE, RAMP), only_normalised=(QUERY_KEY,))
METRIC_AGAINST_ATTENTION = moved(*FOLDED, only_plain=(SCALE, RAMP), only_normalised=(QUERY_KEY,))
# W_k W_qᵀ, as published, is no function of g: turns leave its spectrum, scales of planes do not.
PUBLISHED_SPECTRUM = moved(*(*FOLDED, *ORDER, *QUERIES), only_plain=(SCALE, RAMP, PLANES), only_normalised=(QUERY_KEY,))
BY_HEAD = moved(*ORDER)  # what the model does, listed head by head
FOLDED_HEADS = (
    "all_distance_similarity",
    "all_distance_symmetry",
    "folded_sign_mixed",
    "read_subspace_overlap",
    "read_subspace_overlap_isotropic",
)
"""Metrics of heads with all gains folded in."""

STATISTICS: Mapping[str, Mapping[str, Moved]] = {
    "null_residual": {
        "metrics.worst_median_abs_cos.value": STORED,
        "metrics.worst_median_cos_sq.value": STORED,
        "metrics.worst_median_abs_cos_matched.value": NEVER,
        "pair_results.*.matched.*": NEVER,  # gains folded in, scale-free, each matched on the others
        "metrics.worst_eff_rank_ratio.value": STORED,
        "metrics.worst_gain_pearson.value": GAIN_PATTERN,
        "metrics.worst_gain_z.value": GAIN_PATTERN,
        "scales.*": NORMS,
        "metrics.first_mode_standardised.value": NORMS,
        "metrics.first_mode_above_parallel.value": NORMS,
        # What layers read and write, each quantity in a form that no exact map of the layer's weights changes.
        "metrics.read_alignment.value": NEVER,
        "metrics.read_channel_r.value": moved(ROTATION),  # read off channels
        "metrics.read_write_rank_ratio.value": NEVER,
        "invariant_scales.*": NEVER,
        "metrics.invariant_first_mode.value": NEVER,
    },
    "head_grams": {
        "metrics.median_abs_similarity_matched.value": METRIC_SHAPE,
        "metrics.median_abs_similarity_index.value": METRIC_BY_HEAD,
        "metrics.median_overlap_ratio.value": METRIC_SHAPE,
        "metrics.median_overlap_ratio_index.value": METRIC_BY_HEAD,
        "metrics.mixed_sign_share.value": METRIC_SHAPE,
        **dict.fromkeys((f"metrics.{name}.value" for name in FOLDED_HEADS), NEVER),
        "folded.symmetry": BY_HEAD,
        "folded.negative": BY_HEAD,
        "curvature": METRIC_BY_HEAD,
        "singvals": METRIC_SIZE,
    },
    "attention_stats": {
        "static.*.metric_singvals_per_head": PUBLISHED_SPECTRUM,
        "static.*.singvals_per_head": METRIC_SIZE,
        "static.*.gained_singvals_per_head": BY_HEAD,
        "dynamic.*.mean_attention_entropy_per_head": BY_HEAD,
        "dynamic.*.mean_logit_std_per_head": BY_HEAD,
        "dynamic.*.sink_share_per_head": BY_HEAD,
        "temperature": NEVER,
    },
    "schedule_fit": {
        "families.input_ln.track": GAIN_NORM,
        "metrics.input_gain_one_piece_r2.value": GAIN_NORM,
        "metrics.published_kirkpatrick_r2.value": GAIN_NORM,
        "metrics.published_kirkpatrick_alpha.value": GAIN_NORM,
        "temperature.measured.track": NEVER,
        "metrics.measured_temperature_spearman.value": NEVER,
        "metrics.measured_kirkpatrick_alpha.value": NEVER,
        "metrics.measured_kirkpatrick_weight.value": NEVER,
    },
    "head_geometry": {
        "metrics.best_abs_r.value": METRIC_AGAINST_ATTENTION,
        "metrics.within_r_signed.value": METRIC_AGAINST_ATTENTION,
        "metrics.r2_out_of_sample.value": METRIC_AGAINST_ATTENTION,
        "tables.gained.entropy.best_abs_r": NEVER,
        "tables.gained.logit_std.best_abs_r": NEVER,
    },
    "delta_svd": {
        "metrics.median_top1_frac.value": NEVER,
        "metrics.median_top1_frac_unit_rows.value": NEVER,
        "metrics.median_top1_frac_centred.value": NEVER,
        "metrics.median_top1_frac_without_outliers.value": moved(ROTATION),  # a feature dimension is a coordinate
        "metrics.median_adjacent_abs_cos_centred.value": NEVER,
        "metrics.phase_p.value": NEVER,
        "metrics.rel_step_spearman.value": NEVER,
        "published_last.top1_frac": moved(*FOLDED),  # it holds the final norm's gain
        # What layers do on the same states, and what they write to the stream, up to its rotation
        "pairs": NEVER,
        **{
            f"metrics.{name}.value": NEVER
            for name in (
                *("functional_cos", "functional_cos_squared", "write_alignment", "write_overlap"),
                *("shared_map_r2_ratio", "shared_map_p", "remainder_top1", "phase_c_rank_ratio", "phase_e_rank_share"),
                *("phase_difference", "phase_difference_p", "phase_cos_difference", "phase_cos_difference_p"),
            )
        },
        **{f"annealing.{name}": NEVER for name in ("own_r2", "shared_r2", "remainder_top1", "remainder_top_singular")},
    },
}
"""Analysis → dotted path in its record (`*` stands for every key or index) → the maps that move it."""


def table(analysis: str, checkpoint: Checkpoint) -> dict[str, dict[str, bool]]:
    """Statistic → map → whether the map leaves it alone; empty for a kind of model without known maps."""
    maps = known_maps(checkpoint)
    if not maps:
        return {}
    return {
        statistic: {m: m not in (found.by_normalised if checkpoint.has_qk_norm else found.by) for m in maps}
        for statistic, found in STATISTICS.get(analysis, {}).items()
    }
