"""The heads of a large model, split into shards: the list of shards, one of them measured, and one on disk.

A shard is some layers ℓ: the facts of their heads, and their comparisons with all layers ℓ' ≥ ℓ. Every comparison is
computed by itself and put in its place, so nothing is summed over shards, and their number changes no bit. The list of
shards follows from the headers alone, so every run has the same. A model whose layers are compared through the entries
of g (`all_pairs`) is one shard: that takes minutes, and its tiles hold all layers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch

from analyses.head_grams import all_pairs
from analyses.head_grams.folded_heads import FoldedHeads, folded_heads, operations
from analyses.head_grams.layer_pairs import Compared, by_entries, by_factors
from analyses.head_grams.one_head import HeadMetrics, Reader, head_metrics
from analyses.progress import Tick, silent
from analyses.weights.shape import Shape

TOP = 8  # leading directions of a head that make its subspace, at most
MATCH_WORK = 1.5e13  # operations, 5 minutes of one core; beyond it only adjacent layers are matched
FOLDED = "folded."  # before the names of folded heads' facts on disk
SHARD_WORK = 1.8e14  # operations of a shard, unless one layer has more: an hour of one core


class Shard(NamedTuple):
    """Some layers' heads; all run in the order of layers, and may be computed as they are asked for."""

    facts: Iterable[HeadMetrics]  # (layer,)
    products: Iterable[Compared]  # (ℓ, ℓ') for each of these ℓ and all ℓ' ≥ ℓ
    folded: Iterable[FoldedHeads]  # (layer,)


ShardOf = Callable[[range], Shard | None]
"""Layers → their shard, where it was measured elsewhere."""


def matches_all(shape: Shape) -> bool:
    """Whether all heads of all layers are compared, through the entries of g."""
    return all_pairs.operations(shape.layers, shape.heads, shape.head_dim, shape.hidden) <= MATCH_WORK


def head_shards(shape: Shape) -> list[range]:
    """The shards in order: runs of layers that cover all of them once."""
    if matches_all(shape):
        return [range(shape.layers)]
    starts, work = [0], 0.0
    for layer in range(shape.layers):
        of_layer = factor_work(shape, layer)
        if work and work + of_layer > SHARD_WORK:
            starts.append(layer)
            work = 0.0
        work += of_layer
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], shape.layers], strict=True)]


def factor_work(shape: Shape, low: int) -> float:
    """Floating-point operations of a layer's folded heads and of comparing it with itself and all higher ones."""
    above = shape.layers - 1 - low
    full = 2.0 * shape.head_dim**2 * shape.hidden * (shape.heads**2 + shape.kv_heads**2)  # all pairs of heads
    paired = 2.0 * shape.head_dim**2 * shape.hidden * (shape.heads + shape.kv_heads)
    folded = operations(shape.heads, shape.kv_heads, shape.head_dim, shape.hidden)
    return folded + full * (3 if above else 1) + paired * max(0, above - 1)  # 3: itself, the next, that one scrambled


def measure_shard(read: Reader, layers: range, shape: Shape, *, seed: int, tick: Tick = silent) -> Shard:
    """The shard of these layers; `tick` is told of comparisons through entries, which come all at once."""
    top = min(TOP, shape.head_dim, shape.hidden)
    facts = (head_metrics(read(layer), top) for layer in layers)
    folded = folded_heads(read.fold, layers, shape.layers, top, seed=seed)
    if matches_all(shape):
        return Shard(facts, by_entries(read, shape.layers, seed=seed, tick=tick), folded)
    return Shard(facts, by_factors(read, layers, shape.layers, seed=seed), folded)


# --- a shard on disk: one tensor a fact, and one or two a comparison, bit by bit -----------------------------------


def to_tensors(shard: Shard) -> dict[str, torch.Tensor]:
    tensors = {}
    for kind, names, facts in (("", HeadMetrics._fields, shard.facts), (FOLDED, FoldedHeads._fields, shard.folded)):
        for field, values in zip(names, zip(*facts, strict=True), strict=True):
            tensors[kind + field] = torch.stack([value.cpu() for value in values])  # (layer, head, …)
    for low, high, *arrays in shard.products:
        for name, value in zip(Compared._fields[2:], arrays, strict=True):
            if value is not None:
                tensors[f"{name}.{low}.{high}"] = torch.as_tensor(value, dtype=torch.float64)
    return tensors


def from_tensors(tensors: Mapping[str, torch.Tensor], layers: range, shape: Shape) -> Shard:
    """The shard of these layers from what `to_tensors` gave."""

    def compared(low: int, high: int) -> Compared:
        stored = {name: tensors.get(f"{name}.{low}.{high}") for name in Compared._fields[2:]}
        arrays = {name: value.numpy() for name, value in stored.items() if value is not None}
        return Compared(low, high, **arrays)

    facts: Iterator[HeadMetrics] = map(HeadMetrics, *(tensors[field] for field in HeadMetrics._fields))
    folded: Iterator[FoldedHeads] = map(FoldedHeads, *(tensors[FOLDED + field] for field in FoldedHeads._fields))
    return Shard(facts, [compared(low, high) for low in layers for high in range(low, shape.layers)], folded)
