"""Inner products ⟨g, g'⟩ of the head metrics of all layers: of all heads, and at equal head index.

With factors, ⟨g, g'⟩ = Σ (W_k W_k'ᵀ)∘(W_q W_q'ᵀ) costs 2·head_dim²·hidden operations for a pair of heads and as many
for its keys. As vectors of hidden² entries two metrics cost 2·hidden² operations, half of it in a
symmetric product, and 2·head_dim·hidden² to form one: 16 times less at head_dim 128 and hidden 1,024. So g is formed
a tile of entries at a time, for all heads of all layers, multiplied with itself, and forgotten:

    operations   (layer·head)²·hidden² + 4·layer·head·head_dim·hidden²  (the 4: g and its scrambled copy)
    bytes        SLAB_BYTES of queries and keys in the type that they are stored in, TILE_BYTES of g

From FLOAT32_HIDDEN on, g and the products of a tile are float32, and tiles are added in float64. The products serve to
match heads: they are right to 1e-6·‖g‖‖g'‖ (a float32 sum of t terms in blocks errs by about √t·6e-8, t being a tile's
entries, head_dim for g; measured 1e-8), where two unrelated heads have 1/hidden. Those at equal index are made again in
float64 (`paired_products`): with A = W_k W_k'ᵀ and B = W_q W_q'ᵀ (head_dim × head_dim), ⟨g, g'⟩ = Σ A∘B. A key/value
head's rows of several layers are stacked, so that one large product gives A for all pairs of them, once for all queries
of its group:

    operations   layer²·head_dim²·hidden·(head + kv_head), half of the full products
    bytes        two lots of LOT_BYTES of layers as they are stored, three products of TILE_ROWS with TILE_ROWS

Before any float32 product a head's queries and its keys are brought to a Frobenius norm between ½ and 1, each by a
power of two, which loses nothing and is given back in float64: products of four small weights would underflow, of four
large ones overflow.

What a best matching reaches by chance needs the same products with a layer whose hidden coordinates are permuted and
given random signs, independently for queries and keys. This keeps every head's spectrum and the kinship of heads inside
a layer, and makes E similarity² = 1/hidden², the same as for random rotations.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from analyses.head_grams.one_head import Reader, Rows
from analyses.numerics.spectra import binary_size, full_float32, gram, signed_permutation
from analyses.progress import Count, Tick, silent

SLAB_BYTES = 96 << 20  # of queries and keys held at a time; with more slabs than one, queries are read again for each
TILE_BYTES = 32 << 20  # of g's entries held at a time: what a large last-level cache holds
FLOAT32_HIDDEN = 512  # below, float64 takes seconds
LOT_BYTES = 64 << 20  # of queries and keys in a lot of layers, for products at equal index, as stored
TILE_ROWS = 1024  # of a head's stacked rows, 8 MB a product: large enough for the full rate


class Products(NamedTuple):
    """Inner products of heads, float64."""

    exact: bool  # whether they are right to float64's rounding
    inner: np.ndarray  # (layer, head, layer, head), ⟨g, g'⟩
    scrambled: np.ndarray  # (pair, head, head), layer ℓ with the scrambled coordinates of ℓ + 1


@full_float32()
def all_products(read: Reader, layers: int, *, seed: int, tick: Tick = silent) -> Products:
    """Inner products of all heads of all layers, and of neighbours with scrambled coordinates.

    Parameters
    ----------
    read : layer → its heads, as stored.
    seed : of the scrambled coordinates, see `scramble`.
    tick : told how many tiles are done.
    """
    first = read(0)
    (kv_heads, head_dim, hidden), heads, device = first.keys.shape, len(first.queries), first.keys.device
    del first
    stored = functools.reduce(
        torch.promote_types, (side(i).dtype for i in range(layers) for side in (read.keys, read.queries))
    )
    exact = stored == torch.float64 or hidden < FLOAT32_HIDDEN
    dtype = torch.float64 if exact else torch.float32
    rows = layers * heads
    tile = max(1, min(hidden, math.isqrt(TILE_BYTES // (dtype.itemsize * rows))))
    inner = torch.zeros(rows, rows, dtype=torch.float64, device=device)
    scrambled = torch.zeros(layers - 1, heads, heads, dtype=torch.float64, device=device)
    entries = torch.empty(rows * tile * tile, dtype=dtype, device=device)
    share = SLAB_BYTES * kv_heads / (kv_heads + heads)  # of the keys: both sides then have about as many slabs
    layer_bytes = 2 * layers * head_dim * stored.itemsize  # 2: with scrambled ones
    of_keys = _slabs(hidden, share / (layer_bytes * kv_heads), tile)
    of_queries = _slabs(hidden, (SLAB_BYTES - share) / (layer_bytes * heads), tile)
    steps = Count(tick, sum(math.ceil(len(k) / tile) * math.ceil(len(q) / tile) for k in of_keys for q in of_queries))
    for key_range in of_keys:
        keys = _slab(read.keys, layers, key_range, stored, seed=seed, side=1)
        for query_range in of_queries:
            queries = _slab(read.queries, layers, query_range, stored, seed=seed, side=0)
            for i in _tiles(len(key_range), tile):
                for j in _tiles(len(query_range), tile):
                    size = len(range(len(key_range))[i]) * len(range(len(query_range))[j])
                    now = entries[: rows * size].view(layers, heads, size)
                    for layer in range(layers):
                        _form(keys.stored(layer, i, dtype), queries.stored(layer, j, dtype), out=now[layer])
                    inner += gram(now.flatten(0, 1))
                    other = torch.empty_like(now[0])
                    for pair in range(layers - 1):
                        _form(keys.shuffled(pair, i, dtype), queries.shuffled(pair, j, dtype), out=other)
                        scrambled[pair] += now[pair] @ other.mT
                    steps.step()
            sizes = keys.sizes.repeat_interleave(heads // kv_heads, dim=1) * queries.sizes  # (layer, head)
            del queries
        del keys
    inner *= torch.outer(sizes.flatten(), sizes.flatten())
    scrambled *= sizes[:-1, :, None] * sizes[1:, None, :]
    return Products(exact, inner.view(layers, heads, layers, heads).cpu().numpy(), scrambled.cpu().numpy())


def operations(layers: int, heads: int, head_dim: int, hidden: int) -> float:
    """Floating-point operations of `all_products`."""
    return layers * heads * hidden**2 * (layers * heads + 4.0 * head_dim)


def paired_products(read: Reader, layers: int) -> np.ndarray:
    """⟨g_ℓ, g_ℓ'⟩ at equal head index, (layer, layer, head), float64. read : layer → its heads."""
    keys, queries = read.keys(0), read.queries(0)
    (kv_heads, head_dim, _), heads = keys.shape, len(queries)
    tile = max(1, min(TILE_ROWS // head_dim, LOT_BYTES // (2 * (keys.nbytes + queries.nbytes))))
    del keys, queries
    group = heads // kv_heads
    inner = np.empty((layers, layers, heads))
    lots = [slice(start, min(start + tile, layers)) for start in range(0, layers, tile)]
    for i, low in enumerate(lots):
        a = _lot(read, low)
        for high in lots[i:]:
            b = a if high == low else _lot(read, high)
            for kv in range(kv_heads):
                of_keys = _product(a[0], b[0], kv)
                for head in range(kv * group, (kv + 1) * group):
                    entries = _product(a[1], b[1], head).mul_(of_keys)
                    entries = entries.unflatten(1, (-1, head_dim)).sum(2).unflatten(0, (-1, head_dim)).sum(1)
                    inner[low, high, head] = entries.cpu().numpy()
            if high != low:
                inner[high, low] = inner[low, high].swapaxes(0, 1)
            del b
    return inner


def paired_operations(layers: int, heads: int, kv_heads: int, head_dim: int, hidden: int) -> float:
    """Floating-point operations of `paired_products`."""
    return 1.0 * layers**2 * head_dim**2 * hidden * (heads + kv_heads)


def scramble(rows: torch.Tensor, *, seed: int, pair: int, side: int) -> torch.Tensor:
    """The (…, hidden) rows with their hidden coordinates permuted and given random signs; side 0 queries, 1 keys."""
    order, signs = signed_permutation(rows.shape[-1], (seed, pair, side))
    return rows[..., order.to(rows.device)] * signs.to(rows.device, rows.dtype)


def _slabs(hidden: int, most: float, tile: int) -> list[range]:
    """The hidden coordinates in equal runs of at most `most`, each a multiple of the tile but the last."""
    width = max(tile, int(most) // tile * tile)
    return [range(start, min(start + width, hidden)) for start in range(0, hidden, width)]


def _tiles(width: int, tile: int) -> Iterator[slice]:
    return (slice(start, start + tile) for start in range(0, width, tile))


class _Slab(NamedTuple):
    """Some hidden coordinates of all layers' keys or queries, as they are, and scrambled from layer 1 on."""

    rows: torch.Tensor  # (layer, kv_head or head, hidden, head_dim), as stored
    scrambled: torch.Tensor  # (layer − 1, …)
    sizes: torch.Tensor  # (layer, kv_head or head), `binary_size` of each head, float64

    def stored(self, layer: int, part: slice, dtype: torch.dtype) -> torch.Tensor:
        """Some coordinates of a layer's unit heads, (kv_head or head, part, head_dim)."""
        return self.rows[layer, :, part].to(dtype, copy=True).div_(self.sizes[layer, :, None, None].to(dtype))

    def shuffled(self, pair: int, part: slice, dtype: torch.dtype) -> torch.Tensor:
        """The same of layer `pair` + 1, scrambled."""
        return self.scrambled[pair, :, part].to(dtype, copy=True).div_(self.sizes[pair + 1, :, None, None].to(dtype))


def _slab(rows_of: Rows, layers: int, coordinates: range, stored: torch.dtype, *, seed: int, side: int) -> _Slab:
    columns = slice(coordinates.start, coordinates.stop)
    slab = None
    for layer in range(layers):
        rows = rows_of(layer)  # (kv_head or head, head_dim, hidden)
        if slab is None:  # once and whole: many small tensors between passing ones would fragment the memory
            size = (len(rows), len(coordinates), rows.shape[1])
            slab = torch.empty(layers, *size, dtype=stored, device=rows.device)
            scrambled = torch.empty(layers - 1, *size, dtype=stored, device=rows.device)
            sizes = torch.empty(layers, len(rows), dtype=torch.float64, device=rows.device)
        slab[layer] = rows[..., columns].mT
        sizes[layer] = binary_size(rows)
        if layer:
            order, signs = signed_permutation(rows.shape[-1], (seed, layer - 1, side))
            order, signs = order[columns].to(rows.device), signs[columns].to(rows.device)
            scrambled[layer - 1] = rows[..., order].mul_(signs).mT
        del rows
    return _Slab(slab, scrambled, sizes)


def _form(keys: torch.Tensor, queries: torch.Tensor, *, out: torch.Tensor) -> None:
    """Some entries (i, j) of every head's g in one layer into `out`, (head, i·j), from (…, i or j, head_dim) sides."""
    left = keys.repeat_interleave(len(queries) // len(keys), dim=0)  # (head, i, head_dim)
    torch.bmm(left, queries.mT, out=out.view(len(out), left.shape[1], queries.shape[1]))


def _lot(read: Reader, layers: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """(layer, kv_head, head_dim, hidden) keys and (layer, head, head_dim, hidden) queries, as stored."""
    which = range(layers.start, layers.stop)
    return torch.stack([read.keys(layer) for layer in which]), torch.stack([read.queries(layer) for layer in which])


def _product(a: torch.Tensor, b: torch.Tensor, head: int) -> torch.Tensor:
    """All rows of one head in these layers with all of its rows in those, (layer·head_dim, layer'·head_dim)."""
    left = a[:, head].double().flatten(0, 1)
    return gram(left) if a is b else left @ b[:, head].double().flatten(0, 1).mT
