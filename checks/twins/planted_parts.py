"""Twins with one part of every layer planted: heads of low rank, heavy-tailed spectra."""

from functools import partial

import torch

from analyses.weights.architectures import MATRICES
from checks.twins.roles import Role
from checks.twins.twins import Twin, TwinCheckpoint


def tapered_heads(*, size: float = 1.5) -> Twin:
    """Every head's dimensions, of queries, keys, values and output alike, scaled from 1 down to e^−size.

    Dimensions that a position turns together are scaled alike. The product then needs fewer of its factors' dimensions;
    of a much steeper fall the factors turned at random need as few.
    """
    return Twin(
        name="tapered head",
        preserves="the directions of every row; feed-forward, gains, biases, embedding and head",
        destroys=f"the rank of heads: their dimensions fall off by e^{size:g}",
        size=size,
        change=partial(_taper, size=size),
    )


def _taper(twin: TwinCheckpoint, role: Role, value: torch.Tensor, *, size: float) -> torch.Tensor:
    if role.bias or role.part not in ("q_proj", "k_proj", "v_proj", "o_proj"):
        return value
    dim = twin.shape.head_dim
    step = torch.arange(dim) % (dim // 2) if role.part in ("q_proj", "k_proj") and dim % 2 == 0 else torch.arange(dim)
    factor = torch.exp(-size * step.double() / max(int(step.max()), 1))
    if role.part == "o_proj":
        return value.double() * factor.repeat(value.shape[1] // dim)
    return value.double() * factor.repeat(value.shape[0] // dim)[:, None]


def heavy_tails(*, alpha: float = 3.0) -> Twin:
    """Every matrix with the eigenvalues of WᵀW drawn from a power law of this exponent, its singular vectors kept."""
    return Twin(
        name="heavy tail",
        preserves="the singular vectors of every matrix and its norm; gains, biases, embedding and head",
        destroys=f"its spectrum: eigenvalues of WᵀW of density λ^−{alpha:g}",
        size=alpha,
        change=partial(_heavy, alpha=alpha),
    )


def _heavy(twin: TwinCheckpoint, role: Role, value: torch.Tensor, *, alpha: float) -> torch.Tensor:
    if role.bias or role.part not in MATRICES:
        return value
    u, sigma, vt = torch.linalg.svd(value.double(), full_matrices=False)
    drawn = torch.rand(len(sigma), generator=twin.draw(*role.key), dtype=torch.float64)
    new = ((1 - drawn) ** (-0.5 / (alpha - 1))).sort(descending=True).values
    return (u * (new * sigma.norm() / new.norm())) @ vt
