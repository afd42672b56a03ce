"""What are the inner products ⟨g_ℓ, g_ℓ'⟩ of heads at equal index, for all pairs of layers?

With A = W_k W_k'ᵀ and B = W_q W_q'ᵀ (head_dim × head_dim), ⟨g, g'⟩ = Σ A∘B. A key/value head's rows of several layers
are stacked, so that one large product gives A for all pairs of them, once for all queries of its group:

    operations   layer²·head_dim²·hidden·(head + kv_head), half of the full products, in float64
    bytes        LAYERS_BYTES of layers as they are stored, three products of some layers with some layers
"""

import numpy as np
import torch

from analyses.head_grams.one_head import Reader
from analyses.numerics.spectra import gram

LAYERS_BYTES = 64 << 20  # of queries and keys held at a time, as stored; the others are read again for each such lot
TILE_ROWS = 1024  # of a head's stacked rows, 8 MB a product: large enough for the full rate


def paired_products(read: Reader, layers: int) -> np.ndarray:
    """⟨g_ℓ, g_ℓ'⟩ at equal head index, (layer, layer, head), float64. read : layer → its heads."""
    keys, queries = read.keys(0), read.queries(0)
    (kv_heads, head_dim, _), heads = keys.shape, len(queries)
    tile = max(1, min(TILE_ROWS // head_dim, LAYERS_BYTES // (2 * (keys.nbytes + queries.nbytes))))
    del keys, queries
    group = heads // kv_heads
    found = np.empty((layers, layers, heads))
    lots = [slice(start, min(start + tile, layers)) for start in range(0, layers, tile)]
    for i, low in enumerate(lots):
        a = _lot(read, low)
        for high in lots[i:]:
            b = a if high == low else _lot(read, high)
            for kv in range(kv_heads):
                of_keys = _product(a[0], b[0], kv)
                for head in range(kv * group, (kv + 1) * group):
                    inner = _product(a[1], b[1], head).mul_(of_keys)
                    inner = inner.unflatten(1, (-1, head_dim)).sum(2).unflatten(0, (-1, head_dim)).sum(1)
                    found[low, high, head] = inner.cpu().numpy()
            if high != low:
                found[high, low] = found[low, high].swapaxes(0, 1)
            del b
    return found


def operations(layers: int, heads: int, kv_heads: int, head_dim: int, hidden: int) -> float:
    """Floating-point operations of `paired_products`."""
    return 1.0 * layers**2 * head_dim**2 * hidden * (heads + kv_heads)


def _lot(read: Reader, layers: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """(layer, kv_head, head_dim, hidden) keys and (layer, head, head_dim, hidden) queries, as stored."""
    which = range(layers.start, layers.stop)
    return torch.stack([read.keys(layer) for layer in which]), torch.stack([read.queries(layer) for layer in which])


def _product(a: torch.Tensor, b: torch.Tensor, head: int) -> torch.Tensor:
    """All rows of one head in these layers with all of its rows in those, (layer·head_dim, layer'·head_dim)."""
    left = a[:, head].double().flatten(0, 1)
    return gram(left) if a is b else left @ b[:, head].double().flatten(0, 1).mT
