"""Similarity of the head metrics of two layers, at equal head index and at the best matching of heads.

The order of heads is a free permutation of the parameters, so that the pairing by index is arbitrary; the pairing that
counts is the linear assignment with the largest Σ|similarity|. What it reaches by chance is measured on
the layers themselves, with the second one's coordinates scrambled.

All heads of all layers are compared through the entries of g (`all_pairs`). In a model too large for that, only
adjacent layers are matched, and the others compared at equal head index, through the factors: with A = W_k W_k'ᵀ
and B = W_q W_q'ᵀ (head_dim × head_dim), ⟨g, g'⟩ = Σ A∘B.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from analyses.head_grams.all_pairs import all_products, paired_products, scramble
from analyses.head_grams.one_head import Heads, Reader
from analyses.numerics.spectra import factored_inner_products
from analyses.progress import Tick, silent

LAYERS_BYTES = 128 << 20  # layers kept in memory at a time, float64; the others are read again for each such lot


class Compared(NamedTuple):
    """The heads of one layer with those of another, or with themselves; float64."""

    low: int  # ℓ
    high: int  # ℓ' ≥ ℓ
    paired: np.ndarray  # (head,), ⟨g_ℓ, g_ℓ'⟩ at equal head index
    inner: np.ndarray | None = None  # (head, head), of all heads, to match them by, as precise as `all_pairs` says
    scrambled: np.ndarray | None = None  # (head, head), with ℓ' scrambled; where ℓ' = ℓ + 1
    asymmetry: float | None = None  # largest |⟨g_0, g_h⟩ − ⟨g_h, g_0⟩|, relative to the largest product; where ℓ' = ℓ


class Pairs(NamedTuple):
    """Comparisons of layers, float64; NaN where a head's g is zero."""

    gram: np.ndarray  # (layer, layer, head), ⟨g_ℓ, g_ℓ'⟩ at equal head index
    matched_mean: np.ndarray  # (layer, layer), mean |similarity| at the best matching; NaN where not computed
    matching: np.ndarray  # (pair, head), head of layer ℓ+1 that is matched to head h of layer ℓ
    matched: np.ndarray  # (pair, head), signed similarity at that matching
    chance_matching: np.ndarray  # (pair, head), as `matching`, with layer ℓ+1's coordinates scrambled
    chance: np.ndarray  # (pair, head), as `matched`, with layer ℓ+1's coordinates scrambled
    asymmetry: float  # largest |⟨g_0, g_h⟩ − ⟨g_h, g_0⟩| in a layer, relative to its largest product


def inner_products(a: Heads, b: Heads) -> torch.Tensor:
    """⟨g_h, g_h'⟩ for all heads h of one layer and h' of another, (head, head), exact."""
    return factored_inner_products(a.keys, a.queries, b.keys, b.queries)


def paired_inner_products(a: Heads, b: Heads) -> torch.Tensor:
    """⟨g_h, g'_h⟩ at equal head index only, (head,): `heads` times less work than all pairs."""
    keys = (a.keys @ b.keys.mT).repeat_interleave(a.queries_per_key, dim=0)
    return (keys * (a.queries @ b.queries.mT)).sum((-2, -1))


def best_matching(similarity: np.ndarray) -> np.ndarray:
    """For each row the column assigned to it, so that Σ|similarity| is largest; NaN counts as 0."""
    return linear_sum_assignment(np.nan_to_num(np.abs(similarity)), maximize=True)[1]


def compare_layers(products: Iterable[Compared], norms: np.ndarray) -> Pairs:
    """The heads of all pairs of layers, in any order, put in their places and matched.

    Parameters
    ----------
    products : each pair ℓ ≤ ℓ' once.
    norms : (layer, head), ‖g‖_F; NaN for a head whose g is zero.
    """
    layers, heads = norms.shape
    gram = np.zeros((layers, layers, heads))
    matched_mean = np.full((layers, layers), np.nan)
    matching, chance_matching = (np.zeros((layers - 1, heads), dtype=int) for _ in range(2))
    matched, chance = (np.zeros((layers - 1, heads)) for _ in range(2))
    asymmetry = 0.0
    for low, high, paired, inner, scrambled, of_layer in products:
        gram[low, high] = gram[high, low] = paired
        if inner is None:
            continue
        columns, values = _match(inner / np.outer(norms[low], norms[high]))
        matched_mean[low, high] = matched_mean[high, low] = mean(np.abs(values))
        if of_layer is not None:
            asymmetry = max(asymmetry, of_layer)
        if scrambled is not None:
            matching[low], matched[low] = columns, values
            chance_matching[low], chance[low] = _match(scrambled / np.outer(norms[low], norms[high]))
    return Pairs(gram, matched_mean, matching, matched, chance_matching, chance, asymmetry)


def by_entries(read: Reader, layers: int, *, seed: int, tick: Tick = silent) -> Iterator[Compared]:
    """All heads of all layers ℓ ≤ ℓ'.

    Parameters
    ----------
    read : layer → its heads.
    seed : of the scrambled coordinates.
    """
    products = all_products(read, layers, seed=seed, tick=tick)
    paired = np.einsum("ahbh->abh", products.inner) if products.exact else paired_products(read, layers)
    for low in range(layers):
        of_layer = products.inner[low, :, low]
        asymmetry = _asymmetry(of_layer if products.exact else None, read(low), paired[low, low].max())
        yield Compared(low, low, paired[low, low], of_layer, asymmetry=asymmetry)
        for high in range(low + 1, layers):
            scrambled = products.scrambled[low] if high == low + 1 else None
            yield Compared(low, high, paired[low, high], products.inner[low, :, high], scrambled)


def by_factors(read: Reader, lows: range, layers: int, *, seed: int) -> Iterator[Compared]:
    """The layers ℓ in `lows` with all ℓ' ≥ ℓ: all heads of neighbours, others at equal head index.

    Every pair is computed by itself, so that the numbers do not depend on which others `lows` holds.
    """
    for low, high, a, b in layer_pairs(read, lows, layers):
        if high - low > 1:
            yield Compared(low, high, paired_inner_products(a, b).cpu().numpy())
            continue
        inner = inner_products(a, b).cpu().numpy()
        paired = inner.diagonal().copy()
        if high == low:
            yield Compared(low, high, paired, inner, asymmetry=_asymmetry(inner, a, paired.max()))
        else:
            keys, queries = (scramble(rows, seed=seed, pair=low, side=i) for i, rows in ((1, b.keys), (0, b.queries)))
            yield Compared(low, high, paired, inner, inner_products(a, Heads(keys, queries)).cpu().numpy())


def _asymmetry(inner: np.ndarray | None, layer: Heads, largest: float) -> float:
    """Largest |⟨g_0, g_h⟩ − ⟨g_h, g_0⟩| relative to the layer's largest product, which is one of a head with itself.

    inner : the products of the layer's heads; None to take both sides from the factors.
    """
    first = Heads(layer.keys[:1], layer.queries[:1])
    of_first = inner_products(first, layer).cpu().numpy()[0] if inner is None else inner[0]
    to_first = inner_products(layer, first).cpu().numpy()[:, 0]
    return float(np.abs(of_first - to_first).max() / (largest or 1))


def layer_pairs(read: Reader, lows: range, layers: int) -> Iterator[tuple[int, int, Heads, Heads]]:
    """(ℓ, ℓ', heads of ℓ, heads of ℓ') for all ℓ in `lows` and ℓ' ≥ ℓ, a tile of ℓ in memory at a time."""
    first = read(lows.start)
    tile = max(1, LAYERS_BYTES // (first.keys.nbytes + first.queries.nbytes))
    del first
    kept: dict[int, Heads] = {}
    for start in range(lows.start, lows.stop, tile):
        kept.clear()  # before the next are read, or both would be held
        kept.update((layer, read(layer)) for layer in range(start, min(start + tile, lows.stop)))
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
