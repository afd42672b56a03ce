"""How alike are the head metrics of two layers, head by head and at the best matching of heads?

With A = W_k W_k'ᵀ and B = W_q W_q'ᵀ (head_dim × head_dim), ⟨g, g'⟩ = Σ A∘B: one product of all query rows and
one of all key rows give every pair of heads of two layers. The order of heads is a free permutation
of the parameters, so that the pairing by index is arbitrary; the pairing that counts is the linear assignment
with the largest Σ|similarity|.

What a best matching reaches by chance is measured on the layers themselves: the hidden coordinates of
the second layer are permuted and given random signs, independently for queries and keys. This
keeps every head's spectrum and the kinship of heads inside a layer, and makes E similarity² = 1/hidden²,
the same as for random rotations.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from analyses.head_metric import Heads

TILE_BYTES = 2 << 30  # layers kept in memory at a time, float64; the others are read again per tile
MATCH_WORK = 5e12  # floating-point operations, 2 to 4 minutes of one core; beyond it only adjacent layers are matched

Reader = Callable[[int], Heads]


class Pairs(NamedTuple):
    """Comparisons of layers, float64; NaN where a head's g is zero."""

    gram: np.ndarray  # (layer, layer, head), ⟨g_ℓ, g_ℓ'⟩ at equal head index
    matched_mean: np.ndarray  # (layer, layer), mean |similarity| at the best matching; NaN where not computed
    matching: np.ndarray  # (pair, head), head of layer ℓ+1 that is matched to head h of layer ℓ
    matched: np.ndarray  # (pair, head), signed similarity at that matching
    chance_matching: np.ndarray  # (pair, head), as `matching`, with layer ℓ+1's coordinates scrambled
    chance: np.ndarray  # (pair, head), as `matched`, with layer ℓ+1's coordinates scrambled
    asymmetry: float  # largest |⟨g_h, g_h'⟩ − ⟨g_h', g_h⟩| in a layer, relative to its largest product


def inner_products(a: Heads, b: Heads) -> torch.Tensor:
    """⟨g_h, g_h'⟩ for all heads h of one layer and h' of another, (head, head), exact."""
    kv_heads, per_key, head_dim = len(a.keys), a.queries_per_key, a.keys.shape[1]
    queries = a.queries.flatten(0, 1) @ b.queries.flatten(0, 1).mT
    keys = a.keys.flatten(0, 1) @ b.keys.flatten(0, 1).mT
    queries = queries.view(kv_heads, per_key, head_dim, kv_heads, per_key, head_dim)
    products = queries.mul_(keys.view(kv_heads, 1, head_dim, kv_heads, 1, head_dim))
    return products.sum((2, 5)).view(len(a.queries), len(b.queries))


def paired_inner_products(a: Heads, b: Heads) -> torch.Tensor:
    """⟨g_h, g'_h⟩ at equal head index only, (head,): `heads` times less work than all pairs."""
    keys = (a.keys @ b.keys.mT).repeat_interleave(a.queries_per_key, dim=0)
    return (keys * (a.queries @ b.queries.mT)).sum((-2, -1))


def best_matching(similarity: np.ndarray) -> np.ndarray:
    """For each row the column assigned to it, so that Σ|similarity| is largest; NaN counts as 0."""
    return linear_sum_assignment(np.nan_to_num(np.abs(similarity)), maximize=True)[1]


def signed_permutation(hidden: int, *, seed: int, pair: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random order and random signs of the hidden coordinates, for pair number `pair`; side 0 queries, 1 keys."""
    rng = np.random.default_rng([seed, pair, side])
    return torch.from_numpy(rng.permutation(hidden)), torch.from_numpy(rng.choice([-1.0, 1.0], hidden))


def scramble(rows: torch.Tensor, *, seed: int, pair: int, side: int) -> torch.Tensor:
    """The (…, hidden) rows with their hidden coordinates permuted and given random signs."""
    order, signs = signed_permutation(rows.shape[-1], seed=seed, pair=pair, side=side)
    return rows[..., order.to(rows.device)] * signs.to(rows.device, rows.dtype)


def matching_work(heads: Heads, layers: int) -> float:
    """Floating-point operations of comparing all heads of all pairs of layers."""
    rows = heads.queries.shape[:2].numel() ** 2 + heads.keys.shape[:2].numel() ** 2
    return layers * (layers + 1) / 2 * 2 * rows * heads.keys.shape[-1]


def compare_layers(read: Reader, norms: np.ndarray, *, all_pairs: bool, seed: int) -> Pairs:
    """The heads of all pairs of layers, reading each layer as seldom as `TILE_BYTES` allows.

    Parameters
    ----------
    read : layer → its heads.
    norms : (layer, head), ‖g‖_F; NaN for a head whose g is zero.
    all_pairs : match the heads of all pairs of layers, instead of adjacent ones only.
    seed : of the scrambled coordinates.
    """
    layers, heads = norms.shape
    gram = np.zeros((layers, layers, heads))
    matched_mean = np.full((layers, layers), np.nan)
    matching, chance_matching = (np.zeros((layers - 1, heads), dtype=int) for _ in range(2))
    matched, chance = (np.zeros((layers - 1, heads)) for _ in range(2))
    asymmetry = 0.0
    for low, high, a, b in layer_pairs(read, layers):
        if high - low > 1 and not all_pairs:
            gram[low, high] = gram[high, low] = paired_inner_products(a, b).cpu().numpy()
            continue
        inner = inner_products(a, b).cpu().numpy()  # (head, head)
        gram[low, high] = gram[high, low] = inner.diagonal()
        similarity = inner / np.outer(norms[low], norms[high])
        columns, values = _match(similarity)
        matched_mean[low, high] = matched_mean[high, low] = mean(np.abs(values))
        if high == low:
            asymmetry = max(asymmetry, float(np.abs(inner - inner.T).max() / (np.abs(inner).max() or 1.0)))
        if high == low + 1:
            matching[low], matched[low] = columns, values
            keys, queries = (scramble(rows, seed=seed, pair=low, side=i) for i, rows in ((1, b.keys), (0, b.queries)))
            inner = inner_products(a, Heads(keys, queries)).cpu().numpy()
            chance_matching[low], chance[low] = _match(inner / np.outer(norms[low], norms[high]))
    return Pairs(gram, matched_mean, matching, matched, chance_matching, chance, asymmetry)


def layer_pairs(read: Reader, layers: int) -> Iterator[tuple[int, int, Heads, Heads]]:
    """(ℓ, ℓ', heads of ℓ, heads of ℓ') for all ℓ ≤ ℓ', a tile of ℓ in memory at a time."""
    first = read(0)
    tile = max(1, TILE_BYTES // (first.keys.nbytes + first.queries.nbytes))
    del first
    for start in range(0, layers, tile):
        kept = {layer: read(layer) for layer in range(start, min(start + tile, layers))}
        for high in range(start, layers):
            b = kept[high] if high in kept else read(high)
            for low in kept:
                if low <= high:
                    yield low, high, kept[low], b


def _match(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    columns = best_matching(similarity)
    return columns, similarity[np.arange(len(columns)), columns]


def mean(values: np.ndarray, axis: int | None = None) -> np.ndarray | float:
    """Mean over what is not NaN; NaN where nothing is left."""
    return _filled(np.ma.masked_invalid(values).mean(axis=axis))


def median(values: np.ndarray) -> float:
    """Median over what is not NaN; NaN where nothing is left."""
    return _filled(np.ma.median(np.ma.masked_invalid(values)))


def _filled(value: np.ma.MaskedArray | float) -> np.ndarray | float:
    filled = np.ma.filled(value, np.nan)
    return filled if np.ndim(filled) else float(filled)
