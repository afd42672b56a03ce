"""Hypothesis strategies for arrays, in one place, each tested for its reach in test_strategies.py."""

import torch
from hypothesis import strategies as st

from analyses.weights.shape import Shape

seeds = st.integers(min_value=0, max_value=2**31 - 1)


@st.composite
def matrices(draw, *, max_side: int = 12, rank: int | None = None) -> torch.Tensor:
    """A float64 (out, in) Gaussian matrix, also 1×n and n×1, scaled over six decades, of full or of drawn rank."""
    rows = draw(st.integers(1, max_side))
    columns = draw(st.integers(1, max_side))
    inner = draw(st.integers(1, min(rows, columns))) if rank is None else min(rank, rows, columns)
    generator = torch.Generator().manual_seed(draw(seeds))
    scale = 10.0 ** draw(st.integers(-3, 3))
    left = torch.randn(rows, inner, generator=generator, dtype=torch.float64)
    right = torch.randn(inner, columns, generator=generator, dtype=torch.float64)
    return scale * left @ right


@st.composite
def head_factors(draw, *, max_dim: int = 6, max_hidden: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """(W_k, W_q) of one head, each (head_dim, hidden) float64, at times rank-deficient or with hidden < 2·head_dim."""
    head_dim = draw(st.integers(1, max_dim))
    hidden = draw(st.integers(head_dim, max_hidden))
    generator = torch.Generator().manual_seed(draw(seeds))
    sides = torch.randn(2, head_dim, hidden, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        sides[draw(st.integers(0, 1)), -1] = 0  # one dead dimension: the head's rank falls below head_dim
    return sides[0], sides[1]


@st.composite
def shapes(draw) -> Shape:
    """Sizes of a tiny decoder: query heads alone, in groups or all on one key; one expert or several."""
    kv_heads = draw(st.integers(1, 3))
    return Shape(
        layers=2,
        hidden=draw(st.integers(1, 6)),
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=draw(st.integers(1, 3)),
        feed_forward=draw(st.integers(1, 5)),
        experts=draw(st.integers(1, 3)),
    )
