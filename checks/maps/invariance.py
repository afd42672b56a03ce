"""The statistics that an exact change of parameters leaves alone, as a table.

A model's function does not fix its weights: gains can be moved into matrices, heads and neurons reordered, values and
rotary planes turned, the residual stream rotated. Every record says of its main statistics which of these maps leave
them alone, so that a reader sees whether a number speaks of the model or of one way of writing it down.

True is a promise, for every model on which the map is defined: the statistic stays, up to rounding and,
where the map passes through a norm that takes a scale off, up to its eps. False says that it moves, or loses its value,
for some model. A statistic with heads or layers in it is compared as the list that it is, in its order. p-values by
resampling are left out where they read what moves: those of `best_abs_r`, `within_r_signed` and the two-piece form.

Here the maps have their names only; the modules beside this one apply them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.maps.names import (
    CONSTANT,
    EXPERTS,
    FOLD,
    MAPS,
    MIX_QUERIES,
    MIX_VALUES,
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
    SIGNS,
    STREAM,
    TURNS,
    VALUES,
    WRITES,
)

if TYPE_CHECKING:  # the page reads the names of the maps, and reads them without torch
    from analyses.weights.checkpoint import Checkpoint


def known_maps(checkpoint: Checkpoint) -> list[str]:
    """Names of the exact maps that this architecture and shape have, in the order of MAPS; none for an unknown kind."""
    from checks.maps import catalogue  # the page reads the table's names without it

    defined = {change.name for change in catalogue.MAPS if change.undefined_for_kind(checkpoint) is None}
    return [name for name in MAPS if name in defined]


@dataclass(frozen=True, slots=True)
class Moved:
    """The maps that move a statistic, all others leave it alone; and why."""

    why: str  # one reason, for both
    by: frozenset[str]  # without norms of queries and keys
    by_normalised: frozenset[str]  # with them

    @property
    def invariant(self) -> bool:
        """Whether no exact map moves it: a number about the model."""
        return not self.by | self.by_normalised


def moved(why: str, *by: str, only_plain: tuple[str, ...] = (), only_normalised: tuple[str, ...] = ()) -> Moved:
    return Moved(why, frozenset((*by, *only_plain)), frozenset((*by, *only_normalised)))


def never(why: str) -> Moved:
    return Moved(why, frozenset(), frozenset())


def and_by(found: Moved, why: str, *more: str) -> Moved:
    return Moved(f"{found.why}; {why}", found.by | {*more}, found.by_normalised | {*more})


FOLDED = (RESCALE, FOLD, ROTATION)  # change matrices channel by channel: they take up a gain of many values
ENTRIES = (*FOLDED, *VALUES, *TURNS, *QUERIES, SIGNS, NEURONS, *ORDER, EXPERTS, CONSTANT)
STORED = moved(
    "it compares stored entries of one layer with the same entries of the next: any reordering, turn or uneven factor "
    "tells, one factor for a matrix or one order of channels for the whole model does not",
    *ENTRIES,
    only_plain=(PLANES,),
    only_normalised=(QUERY_KEY,),  # there the norms' gains take up the planes' scales
)
GAIN_PATTERN = moved(
    "a gain's pattern over channels can as well stand in the matrices behind it; those of q/k norms go with the "
    "planes",
    *FOLDED,
    only_normalised=(QUARTER_TURNS, PLANES),
)
SCALES = (*FOLDED, SCALE, RAMP, *VALUES, PLANES, *QUERIES, SIGNS, CONSTANT, WRITES)
MODE = moved(
    "log Frobenius norms of stored matrices move wherever a layer has a factor that is free; one for all layers drops "
    "out with the mean",
    *SCALES,
    only_normalised=(QUERY_KEY,),
)
NORMS = and_by(MODE, "of what writes, one for all layers is free", STREAM)
GAIN_NORM = moved("a gain's size can as well stand in the matrices behind it", *FOLDED, SCALE, RAMP)
METRIC_SHAPE = moved(
    "W_kᵀW_q of stored matrices knows nothing of turns and scales of planes, but the gain in front is missing from it",
    *FOLDED,
)
METRIC_BY_HEAD = and_by(METRIC_SHAPE, "heads are listed in their stored order", *ORDER)
METRIC_SIZE = moved(
    "W_kᵀW_q of stored matrices lacks the gain in front and its scale; under q/k norms each head has a free one. "
    "Heads are listed in their stored order",
    *(*FOLDED, *ORDER),
    only_plain=(SCALE, RAMP),
    only_normalised=(QUERY_KEY,),
)
METRIC_AGAINST_ATTENTION = moved(
    "it holds sizes of W_kᵀW_q of stored matrices against what attention does: the former move with gains and free "
    "scales, the latter stays",
    *FOLDED,
    only_plain=(SCALE, RAMP),
    only_normalised=(QUERY_KEY,),
)
PUBLISHED_SPECTRUM = moved(
    "W_k W_qᵀ is no function of W_kᵀW_q: turns leave its spectrum, scales of planes and mixed queries do not",
    *(*FOLDED, *ORDER, *QUERIES),
    only_plain=(SCALE, RAMP, PLANES),
    only_normalised=(QUERY_KEY,),
)
BY_HEAD = moved("it is what the model computes; heads are listed in their stored order", *ORDER)
COMPUTED = never("it is read off what the model computes, which no exact map changes, and sums over heads")
WRITTEN = never(
    "singular values, norms and inner products of what a layer writes are the same in every basis of the stream"
)
MATCHED = never("gains are folded in, every unit is scale-free, and each is matched with one of the other layer first")
GAINED = never("spectra of heads with all gains folded in, scale-free under q/k norms, against what attention does")
FOLDED_HEAD = never(
    "g̃ has every gain folded in and, under q/k norms, unit size; sums over all distances know neither turns nor "
    "scales "
    "of planes, and matched or counted heads no order"
)
FOLDED_BY_HEAD = moved("g̃ has every gain folded in; heads are listed in their stored order", *ORDER)
GRAMS = never("traces and inner products of read and write Grams, unit by unit scale-free, are the same in every basis")
SAME_STATES = never("it compares what layers compute on the same states, with the inner product of the stream")
SHARED = never("least squares and singular values of what layers write and of their states are the same in every basis")
LAW = never(
    "R² of a law of a track's logarithm, where at most one factor for all layers is free: the law's own takes it up"
)
FOLDED_HEADS = (
    "all_distance_similarity",
    "all_distance_symmetry",
    "folded_sign_mixed",
    "read_subspace_overlap",
    "read_subspace_overlap_isotropic",
)
"""Metrics of heads with all gains folded in."""
GAINED_METRICS = ("best_abs_r", "within_r", "regression_r2")
BALANCED = never(
    "ranks of products and sizes of planes with all gains folded in, beside factors in the one balanced form "
    "that maps "
    "between them leave"
)
SHARES = moved("shares of a head's size, gains folded in; heads are listed in their stored order", *ORDER)
BALANCED_HEADS = ("qk_rank_ratio", "ov_rank_ratio", "plane_rho", "decoder_symmetry_off", "encoder_symmetry")
FUNCTIONAL = ("functional_cos", "functional_cos_squared")
TAIL = moved(
    "the spectrum of a stored matrix is the same in any order, turn and scale, but gains, uneven scales and "
    "mixtures change "
    "it; of experts it is the first one's",
    *(*FOLDED, MIX_VALUES, MIX_QUERIES, SIGNS, CONSTANT, EXPERTS),
    only_plain=(PLANES,),
)
STATES = never(
    "norms relative to one another, spectra and angles of states are the same in every basis and scale of the "
    "stream; under "
    "a LayerNorm their mean over features, which a constant moves, is taken out"
)
WAYS = ("", "_without_first", "_without_massive")
STREAM_METRICS = (
    *("massive_ratio", "valley_ratio", "linear_r2", "mean_cosine", "cosine_trend", "least_distance", "later_advantage"),
    *("half_ratio", "half_ratio_over_unrelated", "unrelated_departure", "massive_sink_rho"),
    "plateau_rho",
    *("norm_exponential_weight", "norm_root_weight", "norm_growth"),
)
"""Metrics of the stream's states, in every way of counting tokens."""
ANNEALING = (
    *("shared_map_r2_ratio", "shared_map_p", "remainder_top1", "phase_c_rank_ratio", "phase_e_rank_share"),
    *("phase_difference", "phase_difference_p", "phase_cos_difference", "phase_cos_difference_p"),
)
"""Metrics of the published hypothesis as a whole."""

STATISTICS: Mapping[str, Mapping[str, Moved]] = {
    "null_residual": {
        "metrics.worst_median_abs_cos.value": STORED,
        "metrics.worst_median_cos_sq.value": STORED,
        "metrics.worst_median_abs_cos_matched.value": MATCHED,
        "pair_results.*.matched.*": MATCHED,
        "metrics.worst_eff_rank_ratio.value": STORED,
        "metrics.worst_gain_pearson.value": GAIN_PATTERN,
        "metrics.worst_gain_z.value": GAIN_PATTERN,
        "scales.*": NORMS,
        "metrics.first_mode_standardised.value": MODE,
        "metrics.first_mode_above_parallel.value": MODE,
        # What layers read and write, each quantity in a form that no exact map of the layer's weights changes.
        "metrics.read_alignment.value": GRAMS,
        "metrics.read_channel_r.value": moved("it is read off channels, which a rotation mixes", ROTATION),
        "metrics.read_write_rank_ratio.value": GRAMS,
        "invariant_scales.*": moved(
            "products of all factors that a layer could pass from matrix to matrix; what all write has a free scale",
            STREAM,
        ),
        "metrics.invariant_first_mode.value": never(
            "products of all factors that a layer could pass on, each track less its mean, which the stream's scale is"
        ),
    },
    "head_grams": {
        "metrics.median_abs_similarity_matched.value": METRIC_SHAPE,
        "metrics.median_abs_similarity_index.value": METRIC_BY_HEAD,
        "metrics.median_overlap_ratio.value": METRIC_SHAPE,
        "metrics.median_overlap_ratio_index.value": METRIC_BY_HEAD,
        "metrics.mixed_sign_share.value": METRIC_SHAPE,
        **dict.fromkeys((f"metrics.{name}.value" for name in FOLDED_HEADS), FOLDED_HEAD),
        **dict.fromkeys((f"metrics.{name}.value" for name in BALANCED_HEADS), BALANCED),
        "ranks.plane_share": SHARES,
        "folded.symmetry": FOLDED_BY_HEAD,
        "folded.negative": FOLDED_BY_HEAD,
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
        "metrics.sink_heads.value": COMPUTED,
        "metrics.sink_heads_without_first.value": COMPUTED,
        "temperature": COMPUTED,
    },
    "schedule_fit": {
        "families.input_ln.track": GAIN_NORM,
        "metrics.input_gain_one_piece_r2.value": GAIN_NORM,
        "metrics.published_kirkpatrick_r2.value": GAIN_NORM,
        "metrics.published_kirkpatrick_alpha.value": GAIN_NORM,
        "temperature.measured.track": COMPUTED,
        "metrics.measured_temperature_spearman.value": COMPUTED,
        "metrics.measured_kirkpatrick_alpha.value": COMPUTED,
        "metrics.measured_kirkpatrick_weight.value": COMPUTED,
        "metrics.measured_exponential_r2.value": COMPUTED,
        "metrics.invariant_scale_r2.value": LAW,
        "metrics.write_sigma1_r2.value": LAW,
    },
    "head_geometry": {
        "metrics.best_abs_r.value": METRIC_AGAINST_ATTENTION,
        "metrics.within_r_signed.value": METRIC_AGAINST_ATTENTION,
        "metrics.r2_out_of_sample.value": METRIC_AGAINST_ATTENTION,
        "tables.gained.entropy.best_abs_r": GAINED,
        "tables.gained.logit_std.best_abs_r": GAINED,
        **dict.fromkeys((f"metrics.gained_{name}.value" for name in GAINED_METRICS), GAINED),
    },
    "delta_svd": {
        "metrics.median_top1_frac.value": WRITTEN,
        "metrics.median_top1_frac_unit_rows.value": WRITTEN,
        "metrics.median_top1_frac_centred.value": WRITTEN,
        "metrics.median_top1_frac_without_outliers.value": moved(
            "a feature dimension is a coordinate of the stream, which a rotation mixes", ROTATION
        ),
        "metrics.median_adjacent_abs_cos_centred.value": WRITTEN,
        "metrics.phase_p.value": WRITTEN,
        "metrics.rel_step_spearman.value": WRITTEN,
        "published_last.top1_frac": moved(
            "it holds the final norm's gain, which the head can take up, and a norm's output less the stream",
            *FOLDED,
            STREAM,
        ),
        "pairs": SAME_STATES,
        **dict.fromkeys((f"metrics.{name}.value" for name in FUNCTIONAL), SAME_STATES),
        **dict.fromkeys((f"metrics.{name}.value" for name in ("write_alignment", "write_overlap")), WRITTEN),
        **dict.fromkeys((f"metrics.{name}.value" for name in ANNEALING), SHARED),
        **dict.fromkeys((f"annealing.{name}" for name in ("own_r2", "shared_r2", "remainder_top1")), SHARED),
        "annealing.remainder_top_singular": and_by(SHARED, "but not of every scale", STREAM),
    },
    "weight_spectra": {
        "metrics.stored_alpha.value": TAIL,
        "metrics.stored_alpha_off.value": TAIL,
        "stored.*.*.alpha": TAIL,
        "metrics.folded_alpha.value": GRAMS,
        "metrics.folded_alpha_off.value": GRAMS,
        "folded.*.*.alpha": GRAMS,
    },
    "residual_stream": {
        **{f"metrics.{name}{way}.value": STATES for name in STREAM_METRICS for way in WAYS},
        **{f"ways.*.{name}": STATES for name in ("massive_ratio", "entropy", "cosine", "step", "distance")},
        "ways.*.norm": and_by(STATES, "but this one is a length as it stands", STREAM),
        "published.largest": moved(
            "an activation is a coordinate of the stream, in its own scale, and has what every write adds to all of "
            "them",
            ROTATION,
            STREAM,
            CONSTANT,
        ),
        "sink_share": COMPUTED,
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


def moved_by(path: str, checkpoint: Checkpoint) -> frozenset[str] | None:
    """Names of the maps that move a statistic of this kind of model; None for one that is not in the table.

    Parameters
    ----------
    path : "analysis.word.word", without the last word `value` of a metric.
    """
    analysis, _, rest = path.partition(".")
    listed = STATISTICS.get(analysis, {})
    found = listed.get(rest) or listed.get(f"{rest}.value")
    if found is None:
        return None
    return found.by_normalised if checkpoint.has_qk_norm else found.by
