"""Quantities of the records, each with its axes: what columns of tables are, and what a claim of your own may read.

A path is that of a JSON record, with an axis in braces wherever it goes over all of one: `fro_sq.{layer}.{head}`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

AXES = {
    "layer": "decoder layer, from 0",
    "pair": "layer ℓ of the adjacent layers ℓ and ℓ + 1",
    "head": "query head, from 0",
    "plane": "rotary plane of a head, from 0",
    "family": "family of weights, as q_proj",
    "part": "what is compared: a family, or something that a layer reads or writes",
    "unit": "kind of unit that is matched: gate, up, down, qk or vo",
    "descriptor": "descriptor of a head's spectrum",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """Numbers of one meaning."""

    name: str  # the column; axes of the path that are no key of the table stand in braces in it
    analysis: str
    path: str  # in the record of that analysis
    meaning: str
    unit: str = ""  # "" for a pure number
    fixed: Mapping[str, str] | None = None  # keys of the table that are no axis of the path → their value

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.path))

    def of(self, record: Mapping[str, Any]) -> Iterator[tuple[dict[str, int | str], float | None]]:
        """Every number of a record with its place on each axis; nothing where the record lacks the path."""
        yield from _walk(record, self.path.split("."), {})


def _walk(tree: Any, words: list[str], place: dict[str, int | str]) -> Iterator[tuple[dict[str, int | str], Any]]:
    if not words:
        yield place, tree
        return
    word, rest = words[0], words[1:]
    if not word.startswith("{"):
        if isinstance(tree, Mapping) and word in tree:
            yield from _walk(tree[word], rest, place)
        return
    axis = word[1:-1]
    if isinstance(tree, list):
        for i, child in enumerate(tree):
            yield from _walk(child, rest, place | {axis: i})
    elif isinstance(tree, Mapping):
        for key, child in tree.items():
            yield from _walk(child, rest, place | {axis: key})


def _all(analysis: str, at: str, *columns: tuple[str, ...], fixed: Mapping[str, str] | None = None) -> list[Quantity]:
    """Columns of one analysis and place: (name, key, meaning, unit), the last may be left out."""
    return [
        Quantity(
            name=name,
            analysis=analysis,
            path=at.replace("*", key) if key else at,
            meaning=meaning,
            unit=(*unit, "")[0],
            fixed=fixed,
        )
        for name, key, meaning, *unit in columns
    ]


_DYNAMIC = "dynamic.{layer}.*.{head}"
HEADS = [
    *_all(
        "head_grams",
        "*.{layer}.{head}",
        ("fro_sq", "fro_sq", "‖g‖_F² of g = W_kᵀW_q as stored"),
        ("curvature", "curvature", "negative share of the energy of g + gᵀ, as stored"),
        ("symmetry", "folded.symmetry", "all-distance symmetry S, folded: ½ where keys and queries are unrelated"),
        ("negative", "folded.negative", "negative share of the energy of g̃ + g̃ᵀ, folded, at distance 0"),
    ),
    *_all(
        "head_grams",
        "*.{layer}.{head}",
        ("similarity_next", "folded.similarity", "all-distance similarity to the matched head of the next layer"),
        ("overlap_next", "folded.overlap", "overlap of the read subspaces with the matched head of the next layer"),
        ("matched_next", "folded.matching", "head of the next layer that this one is matched to"),
    ),
    *_all(
        "attention_stats",
        _DYNAMIC,
        ("entropy", "mean_attention_entropy_per_head", "attention entropy, mean over queries", "nats"),
        ("entropy_fraction", "entropy_fraction_per_head", "attention entropy as a share of ln(visible keys)"),
        ("logit_std", "mean_logit_std_per_head", "spread of the scaled logits over visible keys"),
        ("sink_share", "sink_share_per_head", "mean probability on key 0"),
        ("entropy_without_sink", "entropy_without_sink_per_head", "attention entropy without key 0", "nats"),
        ("logit_std_without_sink", "logit_std_without_sink_per_head", "spread of the logits without key 0"),
    ),
    *_all(
        "head_geometry",
        "descriptors.gained.{descriptor}.{layer}.{head}",
        ("gained_{descriptor}", "", "descriptor of the spectrum of g with all gains folded in"),
    ),
    *_all(
        "head_geometry",
        "descriptors.exact.{descriptor}.{layer}.{head}",
        ("stored_{descriptor}", "", "descriptor of the spectrum of g as stored"),
    ),
]

LAYERS = [
    *_all("attention_stats", "*.{layer}", ("temperature", "temperature", "1/(mean over heads of the logit spread)")),
    *_all(
        "null_residual",
        "*.{layer}",
        ("norm_{family}", "scales.{family}", "‖W‖_F as stored"),
        ("scale_{part}", "invariant_scales.{part}", "norm that no exact change of parameters moves"),
    ),
    *_all(
        "delta_svd",
        "annealing.*.{layer}",
        ("own_r2", "own_r2", "share of the write that a linear map of the layer's own explains, unseen prompts"),
        ("shared_r2", "shared_r2", "the same for one map shared by the layers of its phase"),
        ("remainder_top1", "remainder_top1", "energy share of one direction in what the shared map leaves"),
    ),
]

_SAME = "cosine of what both layers write on the same states"
PAIRS = [
    *_all(
        "null_residual",
        "pair_results.{pair}.families.{part}.*",
        ("cos", "cos", "cosine of the two layers' weights"),
        ("resid_norm", "resid_norm", "‖b/‖b‖ − a/‖a‖‖: √2 if orthogonal"),
        ("scalar_resid", "scalar_resid", "what the best scalar multiple leaves"),
        ("scalar_explained", "scalar_explained", "cos²"),
        ("null_cos", "null_cos", "mean cosine under a random matching of entries"),
        ("z", "z", "standard deviations from it"),
        ("resid_eff_rank", "resid_eff_rank", "effective rank of the residual"),
        ("eff_rank_ratio", "eff_rank_ratio", "effective rank over that of Haar-random singular vectors"),
    ),
    *_all("null_residual", "pair_results.{pair}.*.{part}", ("matched_cos", "matched", "mean cosine of matched units")),
    *_all(
        "null_residual",
        "grams.{part}.{pair}.*",
        ("alignment", "align", "cosine of the two Grams, each without its isotropic part"),
        ("rank_ratio", "rank_ratio", "effective rank of the sum of the unit-trace Grams over its Haar chance"),
    ),
    *_all("delta_svd", "pairs.{pair}.*", ("functional_cos", "feed_forward_cos", _SAME), fixed={"part": "feed_forward"}),
    *_all("delta_svd", "pairs.{pair}.*", ("functional_cos", "attention_cos", _SAME), fixed={"part": "attention"}),
    *_all(
        "delta_svd",
        "pairs.{pair}.*",
        ("write_alignment", "write_alignment", "alignment of the covariances of centred writes"),
        ("write_overlap", "write_overlap", "overlap of eight leading write directions over chance"),
        fixed={"part": "writes"},
    ),
]

WRITES = [
    *_all(
        "delta_svd",
        "layers.{layer}.*",
        ("frob", "frob", "‖δ‖_F over all tokens"),
        ("token_norm_mean", "token_norm_mean", "mean ‖δ_t‖ over tokens"),
        ("h_norm_mean", "h_norm_mean", "mean ‖h_t‖ of the layer's input"),
        ("rel_step_mean", "rel_step_mean", "mean ‖δ_t‖/‖h_t‖"),
        ("cos_delta_h_mean", "cos_delta_h_mean", "mean cos(δ_t, h_t)"),
        ("parallel_frac", "parallel_frac", "mean |cos(δ_t, h_t)|"),
        ("eff_rank", "eff_rank", "effective rank of δ"),
        ("top1_frac", "top1_frac", "energy share of the first direction of δ"),
        ("top1_frac_centred", "centred.top1_frac", "the same with the mean write removed"),
        ("top1_frac_unit_rows", "unit_rows.top1_frac", "the same with every token's write at length 1"),
        ("eff_rank_centred", "centred.eff_rank", "effective rank with the mean write removed"),
        ("mean_share", "mean_share", "energy share of the mean write"),
        ("top_token_share", "top_token_share", "energy share of the largest token"),
        ("outlier_share", "outlier_share", "energy share of the largest feature dimensions"),
    ),
    *_all(
        "delta_svd",
        "annealing.*.{layer}",
        ("remainder_top_singular", "remainder_top_singular", "σ₁ of what the shared map leaves"),
    ),
]

PLANES = [
    *_all(
        "head_grams",
        "ranks.*.{layer}.{head}.{plane}",
        ("share", "plane_share", "share of a plane's size in its head"),
    ),
    *_all(
        "head_grams",
        "ranks.*.{layer}.{plane}",
        ("frequency", "plane_frequency", "angle by which a position turns a plane, before any scaling", "rad"),
    ),
]

TABLES: Mapping[str, list[Quantity]] = {
    "heads": HEADS,
    "planes": PLANES,
    "layers": LAYERS,
    "pairs": PAIRS,
    "writes": WRITES,
}
KEYS: Mapping[str, tuple[str, ...]] = {
    "heads": ("layer", "head"),
    "planes": ("layer", "head", "plane"),
    "layers": ("layer",),
    "pairs": ("pair", "part"),
    "writes": ("layer",),
}
"""Table → the axes that name a row; any other axis of a path goes into the column's name, and a quantity that lacks one
of them is the same in all rows along it."""
