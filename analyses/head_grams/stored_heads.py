"""Heads as they are stored, of all layers: facts of each, comparisons, and the metrics of claims about stored rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from analyses.head_grams.folded_heads import FoldedHeads
from analyses.head_grams.folded_record import NO_ROOM, ROOM
from analyses.head_grams.layer_pairs import Compared, Pairs, compare_layers
from analyses.head_grams.one_head import HeadMetrics, Reader, curvature
from analyses.head_grams.shards import ShardOf, head_shards, matches_all, measure_shard
from analyses.head_grams.subspaces import Overlaps, compare_subspaces
from analyses.head_grams.summaries import MATCHED, mixed_sign_share, over_pairs
from analyses.progress import Count, Tick, silent
from analyses.records import Metric
from analyses.weights.shape import Shape

OF_STORED_HEADS = (
    *("median_abs_similarity_matched", "median_abs_similarity_index", "mixed_sign_share"),
    *("median_overlap_ratio", "median_overlap_ratio_index"),
)
"""Metrics that need heads as they are stored, compared in all pairs of layers."""


class StoredHeads(NamedTuple):
    """Axes: layer, head, pair (layers ℓ and ℓ+1); float64."""

    dead: np.ndarray  # (layer, head), whether g is zero
    pairs: Pairs
    similarity: np.ndarray  # (layer, layer, head), gram/√(diag diag), in [−1, 1]; NaN for a zero head
    negative: np.ndarray  # (layer, head), `curvature`; NaN where g + gᵀ = 0
    overlap: Overlaps | None  # None where the stream is too narrow to compare subspaces
    overlap_chance: float  # k/hidden, of unrelated subspaces


def all_layers(
    read: Reader,
    shape: Shape,
    *,
    seed: int,
    shard_of: ShardOf | None = None,
    tick: Tick = silent,
    with_folded: bool = True,
) -> tuple[HeadMetrics, list[Compared], list[FoldedHeads]]:
    """The facts of all heads, (layer, head, …), the comparisons of all layers, and folded heads, shard by shard."""
    all_pairs = matches_all(shape)
    steps = Count(tick, 2 * shape.layers + (0 if all_pairs else shape.layers * (shape.layers + 1) // 2))
    facts: HeadMetrics | None = None
    products: list[Compared] = []
    folded: list[FoldedHeads] = []
    for layers in head_shards(shape):
        shard = (shard_of(layers) if shard_of else None) or measure_shard(read, layers, shape, seed=seed, tick=tick)
        for layer, of_layer in zip(layers, steps.over(shard.facts), strict=True):
            if facts is None:  # of all layers, once and whole: the directions are most of what is held
                facts = HeadMetrics(*(torch.empty(shape.layers, *x.shape, dtype=x.dtype) for x in of_layer))
            for whole, values in zip(facts, of_layer, strict=True):
                whole[layer] = values
        products += shard.products if all_pairs else steps.over(shard.products)
        if with_folded:
            folded += steps.over(shard.folded)
    return facts, products, folded


def stored_heads(facts: HeadMetrics, products: Sequence[Compared], *, seed: int) -> StoredHeads:
    """The comparisons of `all_layers` put together; seed : the one that they were made with."""
    top, hidden = facts.directions.shape[-2:]
    dead, flat = facts.is_zero.numpy(), facts.is_flat.numpy()  # (layer, head)
    norms = np.where(dead, np.nan, facts.fro_sq.sqrt().numpy())  # (layer, head)
    pairs = compare_layers(products, norms)
    return StoredHeads(
        dead=dead,
        pairs=pairs,
        similarity=_similarity(pairs.gram, dead),
        negative=np.where(flat, np.nan, curvature(facts.sym_eigs).numpy()),
        overlap=compare_subspaces(facts.directions, pairs, seed=seed) if hidden >= ROOM * top else None,
        overlap_chance=top / hidden,
    )


def _similarity(gram: np.ndarray, dead: np.ndarray) -> np.ndarray:
    """gram/√(diag diag), (layer, layer, head); NaN where one of the two heads is zero."""
    norms = np.where(dead.T, np.nan, np.sqrt(np.einsum("llh->hl", gram)))
    return gram / np.einsum("ha,hb->abh", norms, norms)


def stored_metrics(found: StoredHeads, *, seed: int) -> dict[str, Metric]:
    """What claims about the stored coordinates read: OF_STORED_HEADS."""
    layers = len(found.negative)
    at_index = found.similarity[range(layers - 1), range(1, layers)]  # (pair, head)
    index, flat = "at equal head index", "g + gᵀ is zero for every head"
    metrics = {
        "median_abs_similarity_matched": over_pairs(np.abs(found.pairs.matched), MATCHED, seed=seed),
        "median_abs_similarity_index": over_pairs(np.abs(at_index), index, seed=seed),
        "mixed_sign_share": mixed_sign_share(found.negative, reason=flat, seed=seed),
    }
    for name, key, how in (
        ("median_overlap_ratio", "adjacent_matched", MATCHED),
        ("median_overlap_ratio_index", "adjacent", index),
    ):
        if found.overlap is None:
            metrics[name] = Metric(value=None, reason=NO_ROOM, applies=False)
        else:
            metrics[name] = over_pairs(getattr(found.overlap, key) / found.overlap_chance, how, seed=seed)
    return metrics
