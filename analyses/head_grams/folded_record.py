"""Metrics of folded heads for the record: similarity and read spans at the best matching, symmetry, sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from analyses.head_grams.folded_heads import FoldedHeads
from analyses.head_grams.layer_pairs import best_matching
from analyses.head_grams.summaries import MATCHED, median_over_layers, mixed_sign_share, over_pairs
from analyses.records import Metric

ROOM = 4  # subspaces are compared where hidden ≥ 4·k: the largest possible ratio to chance is hidden/k
NO_ROOM = f"the hidden size is below {ROOM}·k, where an overlap of subspaces cannot stand out from chance"
TURN_DIFFERENTLY = "the two layers turn by different frequencies, so that no distance compares them"
EVERY_PAIR_TURNS = "adjacent layers turn by different frequencies, so that all distances together compare no two"
NULL = "a head whose g̃ is zero is like no other, one of rank below k has no read span, and a pair of layers that turn "
NULL += "by different frequencies is not compared"

OF_PAIRS = frozenset({"all_distance_similarity", "read_subspace_overlap", "read_subspace_overlap_isotropic"})
"""Metrics of adjacent layers; the others are of each layer alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedRecord:
    """Heads g̃ with all gains folded in, which no exact map touches; over all distances but for `negative`."""

    symmetry: np.ndarray  # (layer, head), S in [0, 1]: 1 symmetric, 0 antisymmetric, ½ for unrelated W̃_q, W̃_k
    negative: np.ndarray  # (layer, head), negative share of the energy of g̃ + g̃ᵀ at distance 0, in [0, 1]
    matching: list[list[int] | None]  # (pair, head), head of layer ℓ+1 that is matched to head h of layer ℓ
    similarity: np.ndarray  # (pair, head), signed, at that matching, in [−1, 1]
    overlap: np.ndarray  # (pair, head), of the top-k read spans, at that matching, in [0, 1]
    overlap_chance: np.ndarray  # (pair,), of spans drawn from the two layers' own read covariances
    overlap_isotropic: float  # k/hidden, of spans drawn from all directions alike


def record(facts: Sequence[FoldedHeads], *, top: int, hidden: int) -> FoldedRecord:
    """The facts of all layers, matched.

    Parameters
    ----------
    facts : (layer,) of all layers in order.
    top : k. hidden : size of the stream.
    """
    stacked = FoldedHeads(*(torch.stack(values).numpy() for values in zip(*facts, strict=True)))
    heads, alike = np.arange(stacked.symmetry.shape[1]), ~np.isnan(stacked.chance[:-1])
    columns = [best_matching(similarity) for similarity in stacked.similarity[:-1]]
    return FoldedRecord(
        symmetry=stacked.symmetry,
        negative=stacked.negative,
        matching=[order.tolist() if known else None for order, known in zip(columns, alike, strict=True)],
        similarity=np.stack([values[heads, order] for values, order in zip(stacked.similarity, columns, strict=False)]),
        overlap=np.stack([values[heads, order] for values, order in zip(stacked.overlap, columns, strict=False)]),
        overlap_chance=stacked.chance[:-1],
        overlap_isotropic=top / hidden,
    )


def metrics(found: FoldedRecord, *, seed: int) -> dict[str, Metric]:
    """What claims about the model read; 90 % intervals by a bootstrap over pairs of adjacent layers, or layers."""
    of_zero = "g̃ is zero for every head"
    turning = np.isnan(found.overlap_chance).all()
    no_pair = Metric(value=None, reason=EVERY_PAIR_TURNS, applies=False)
    of_pairs = {
        "all_distance_similarity": lambda: over_pairs(np.abs(found.similarity), MATCHED, seed=seed),
        "read_subspace_overlap": lambda: _over_own_chance(found, seed=seed),
        "read_subspace_overlap_isotropic": lambda: _over_isotropic_chance(found, seed=seed),
    }
    return {name: no_pair if turning else metric() for name, metric in of_pairs.items()} | {
        "all_distance_symmetry": median_over_layers(found.symmetry, reason=of_zero, seed=seed),
        "folded_sign_mixed": mixed_sign_share(found.negative, reason=of_zero, seed=seed),
    }


BAND = (0.5, 0.62)  # of a decoder's symmetry, as claimed; its middle makes one number of it


def by_kind(symmetry: Metric, *, encoder: bool) -> dict[str, Metric]:
    """The symmetry as its claims ask for it: of an encoder itself, of a decoder its distance from the band's middle."""
    none = replace(symmetry, value=None, interval=None, reason="it is asked of the other kind of model", applies=False)
    if symmetry.value is None or encoder:
        mine, other = (symmetry, none) if encoder else (none, symmetry)
        return {"encoder_symmetry": mine, "decoder_symmetry_off": other}
    middle = sum(BAND) / 2
    ends = symmetry.interval and tuple(end - middle for end in symmetry.interval)
    off = replace(
        symmetry,
        value=abs(symmetry.value - middle),
        interval=ends and (0.0 if ends[0] <= 0 <= ends[1] else min(map(abs, ends)), max(map(abs, ends))),
        method=f"|S − {middle:g}|; {symmetry.method}",
    )
    return {"encoder_symmetry": none, "decoder_symmetry_off": off}


def _over_own_chance(found: FoldedRecord, *, seed: int) -> Metric:
    """Overlap over the pair's own chance; n's `room` is the largest ratio there could be, the median of 1/chance."""
    chance = np.where(found.overlap_chance > 0, found.overlap_chance, np.nan)  # the condition is false also for a NaN
    ratio = over_pairs(found.overlap / chance[:, None], MATCHED, seed=seed)
    if ratio.value is None:
        return ratio
    return replace(ratio, n={**ratio.n, "room": float(np.nanmedian(1 / chance))})


def _over_isotropic_chance(found: FoldedRecord, *, seed: int) -> Metric:
    if found.overlap_isotropic > 1 / ROOM:
        return Metric(value=None, reason=NO_ROOM, applies=False)
    return over_pairs(found.overlap / found.overlap_isotropic, MATCHED, seed=seed)


def absent() -> Mapping[str, str]:
    """Key of the record → why it may hold nulls."""
    zero = "a head whose g̃ is zero has none"
    return {
        "folded.symmetry": zero,
        "folded.negative": zero,
        "folded.matching": TURN_DIFFERENTLY,
        "folded.similarity": NULL,
        "folded.overlap": NULL,
        "folded.overlap_chance": TURN_DIFFERENTLY,
    }
