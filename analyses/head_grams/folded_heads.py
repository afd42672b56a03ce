"""Folded heads of a layer and of its neighbour: similarity over all distances, symmetry, sign, and what is read.

The heads g̃ are those of `weights.folded`, which no exact map touches. Every statistic but the sign energy is taken over
all distances Δ at once (`weights.planes`); that of g̃ + g̃ᵀ is taken at Δ = 0, where g̃ is as free of coordinates as
anywhere. What a head reads is spanned by the right singular vectors of g̃ over all distances, the leading eigenvectors
of the mean of g̃(Δ)ᵀ g̃(Δ).

How far two such spans overlap by chance depends on how unevenly the layers read. With C the mean over heads of the unit
head's g̃ᵀg̃, and P the projector on the span of k vectors drawn from N(0, C), two layers overlap by tr(E P · E P')/k.
In C's eigenbasis E P is diagonal, since the sign of a coordinate is as likely as its opposite: draws that know the
eigenvalues alone give its entries f, and the chance is as free of coordinates as the heads are. With no eigenvector
computed, E P is a·C(C + ν)⁻¹, of the form that it takes where many directions are read, with a and ν such that Σ f and
Σ f² are those of the draws (right to 1 % of the chance, measured on spectra flat, spiked and falling as 1/i and 1/i²).
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from analyses.head_grams.one_head import curvature, rounding_floor
from analyses.numerics.spectra import EPS, Householder, eigenvalues, gram, symmetric_eigenvalues
from analyses.weights import planes
from analyses.weights.folded import Folded

DRAWS = 64  # of a subspace from a layer's read covariance: their mean overlap is then right to about 1 %
NARROWEST, WIDEST = 1e-6, 1e3  # ν relative to C's largest eigenvalue: from E P ∝ 1 to E P ∝ C
HALVINGS = 60  # of the logarithm of ν

FoldedReader = Callable[[int], Folded]
"""Layer → its folded heads."""


class FoldedHeads(NamedTuple):
    """Facts of the heads of one layer ℓ, and of all pairs with those of ℓ + 1; float64."""

    symmetry: torch.Tensor  # (head,), S over all distances, in [0, 1]; NaN for a zero head
    negative: torch.Tensor  # (head,), negative share of the energy of g̃ + g̃ᵀ at distance 0; NaN where it is zero
    # With layer ℓ + 1; NaN behind the last layer, for a zero head, and where the two layers turn differently.
    similarity: torch.Tensor  # (head, head'), ⟨⟨g̃, g̃'⟩⟩/(‖g̃‖‖g̃'‖), in [−1, 1]
    overlap: torch.Tensor  # (head, head'), ‖V V'ᵀ‖²/k of the top-k read spans, in [0, 1]; NaN for a head of lower rank
    chance: torch.Tensor  # (), expected overlap of spans drawn from the two layers' read covariances


class _Layer(NamedTuple):
    """A layer's own facts, and what its comparisons need."""

    symmetry: torch.Tensor  # (head,)
    negative: torch.Tensor  # (head,)
    turns: planes.Turns
    parts: list[planes.Part]
    norms: torch.Tensor  # (head,), NaN for a zero head
    reads: "_Reads | None"  # None where nothing is compared


class _Reads(NamedTuple):
    """What a layer's heads read."""

    spans: torch.Tensor  # (head, k, hidden), orthonormal rows; NaN for a head of rank below k
    projector: torch.Tensor  # (hidden, hidden), `mean_projector`


def folded_heads(
    read: FoldedReader, lows: range, layers: int, top: int, *, seed: int, compared: bool = True
) -> Iterator[FoldedHeads]:
    """The facts of each layer in `lows`, two layers in memory at a time.

    Parameters
    ----------
    read : layer → its folded heads.
    lows : some layers, in order and without gaps. layers : how many there are.
    top : k.
    seed : of the draws; those of a layer depend on it and on the layer's number only.
    compared : whether to compare a layer with the next one; else what is of the two is NaN.
    """
    if not compared:
        yield from (_compared(_layer(read(layer)), None) for layer in lows)
        return
    here = _with_reads(_layer(read(lows.start)), top, seed=[seed, lows.start])
    for layer in lows:
        after = _with_reads(_layer(read(layer + 1)), top, seed=[seed, layer + 1]) if layer + 1 < layers else None
        yield _compared(here, after)
        here = after


def _layer(heads: Folded) -> _Layer:
    negative, floor, turns = sign_energy(heads), _floor(heads), heads.turns
    parts = heads.parts()
    del heads  # where all dimensions turn, the parts are copies
    norms = planes.norms(parts)
    norms = norms.where(norms > floor, torch.nan)
    symmetry = planes.symmetry(parts).where(~norms.isnan(), torch.nan)
    return _Layer(symmetry, negative, turns, parts, norms, None)


def _with_reads(layer: _Layer, top: int, *, seed: list[int]) -> _Layer:
    unit = planes.read_factors(layer.parts).div_(layer.norms[:, None, None])  # (head, head_dim, hidden)
    return layer._replace(reads=_Reads(read_spans(unit, top), mean_projector(unit, top, seed=seed)))


def _compared(here: _Layer, after: _Layer | None) -> FoldedHeads:
    size = len(here.norms)
    similarity = overlap = torch.full((size, size), torch.nan, dtype=torch.float64)
    chance = torch.tensor(torch.nan, dtype=torch.float64)
    if after is not None and here.turns.alike(after.turns):
        similarity = planes.inner_products(here.parts, after.parts) / (here.norms[:, None] * after.norms)
        overlap = _overlaps(here.reads.spans, after.reads.spans)
        chance = (here.reads.projector * after.reads.projector).sum() / here.reads.spans.shape[1]
    found = FoldedHeads(here.symmetry, here.negative, similarity, overlap, chance)
    return FoldedHeads(*(value.cpu() for value in found))


def operations(heads: int, kv_heads: int, head_dim: int, hidden: int) -> float:
    """Floating-point operations of one layer at most: its read covariance with eigenvalues and resolvent, signs, and
    products with its neighbour where no plane turns; where all do, these cost next to nothing.
    """
    covariance = hidden**2 * (heads * head_dim + (4 / 3 + 1) * hidden)
    each = 16.0 * head_dim**2 * hidden + 20.0 * head_dim**3
    return covariance + heads * each + 2.0 * head_dim**2 * hidden * (heads**2 + kv_heads**2)


def sign_energy(heads: Folded) -> torch.Tensor:
    """Negative share of the energy of g̃ + g̃ᵀ at distance 0, in [0, 1], (head,); NaN where that is zero to rounding."""
    queries = heads.queries.unflatten(0, (len(heads.keys), -1))  # (kv_head, query of the group, head_dim, hidden)
    signed = symmetric_eigenvalues(Householder.of(heads.keys), queries).flatten(0, 1)
    flat = signed[:, 0].abs() <= 2 * _floor(heads)
    return curvature(signed).where(~flat, torch.nan)


def read_spans(unit: torch.Tensor, top: int) -> torch.Tensor:
    """Leading right singular vectors of (head, head_dim, hidden) factors of unit norm: (head, top, hidden).

    From the head_dim-sized Gram matrix: a direction of less than head_dim·eps of the energy would be arbitrary, and the
    head's span is NaN.
    """
    values, vectors = torch.linalg.eigh((unit @ unit.mT).nan_to_num())
    lengths = values[:, -top:].clamp_min(0).sqrt().unsqueeze(-1)  # (head, top, 1)
    thin = values[:, -top] <= unit.shape[1] * EPS
    return (vectors[..., -top:].mT @ unit / lengths).masked_fill(thin[:, None, None], torch.nan)


def mean_projector(unit: torch.Tensor, top: int, *, seed: int | list[int]) -> torch.Tensor:
    """E P of the span of `top` draws from the covariance of what a layer's heads read: (hidden, hidden).

    unit : (head, head_dim, hidden) factors F of unit norm, C the sum of FᵀF; a zero head's NaN count as nothing.
    """
    covariance = gram(unit.nan_to_num().flatten(0, 1).mT.contiguous())
    values = eigenvalues(covariance).flip(0).clamp_min(0)
    if not values[0]:
        return torch.zeros_like(covariance)
    share, square = _drawn_moments(values, top, seed=seed)
    of = values.cpu().numpy()
    low, high = math.log(NARROWEST), math.log(WIDEST)
    for _ in range(HALVINGS):  # Σf²/(Σf)² grows with ν
        form = of / (of + of[0] * math.exp((low + high) / 2))
        if form @ form / form.sum() ** 2 < square / share**2:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    ridge = float(of[0]) * math.exp(low)
    covariance.diagonal().add_(ridge)
    projector = torch.cholesky_inverse(torch.linalg.cholesky(covariance)).mul_(-ridge)
    projector.diagonal().add_(1)
    return projector.mul_(share / float((of / (of + ridge)).sum()))


def _drawn_moments(values: torch.Tensor, top: int, *, seed: int | list[int]) -> tuple[float, float]:
    """Σ f and Σ f² over eigenvalues, (mode,) descending, f the diagonal of E P; the square from two halves of draws."""
    rank = int((values > len(values) * EPS * values[0]).sum())
    drawn = np.random.default_rng(seed).standard_normal((DRAWS, len(values), top))
    coloured = values[:rank, None].sqrt() * torch.from_numpy(drawn[:, :rank]).to(values.device)
    first, second = torch.linalg.qr(coloured).Q.square().sum(-1).unflatten(0, (2, -1)).mean(1)
    return float((first + second).sum() / 2), float((first * second).sum())


def _overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """‖V V'ᵀ‖²/k of (head, k, hidden) spans of two layers, (head, head')."""
    cosines = a.flatten(0, 1) @ b.flatten(0, 1).mT
    return cosines.view(len(a), a.shape[1], len(b), b.shape[1]).square().sum((1, 3)) / a.shape[1]


def _floor(heads: Folded) -> torch.Tensor:
    """(head,) what rounding alone can leave in a singular value of g̃."""
    of_keys, of_queries = (rows.norm(dim=(-2, -1)) for rows in heads[:2])
    return rounding_floor(of_keys.repeat_interleave(len(of_queries) // len(of_keys)) * of_queries, heads.keys.shape[1])
