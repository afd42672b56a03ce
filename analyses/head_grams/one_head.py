"""The metric of a single head, g = W_kᵀ W_q, hidden × hidden and of rank ≤ head_dim: its spectra and traces.

g is never built. Its singular values and right singular vectors come from thin QR factors of both
sides and one head_dim-sized SVD, the signed eigenvalues of g + gᵀ from a symmetric problem of size
2·head_dim, its traces and the published norm from the small product W_q W_kᵀ. Everything is
batched over the heads of a layer; the keys of a group are factored once for all its queries.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from analyses.numerics.spectra import EPS, Householder, product_svd, right_svd, symmetric_eigenvalues
from analyses.weights.folded import Folded


class Heads(NamedTuple):
    """One layer's query and key rows by head, float64. Query head h uses key head h·K // H."""

    keys: torch.Tensor  # (kv_head, head_dim, hidden)
    queries: torch.Tensor  # (head, head_dim, hidden)

    @property
    def queries_per_key(self) -> int:
        return len(self.queries) // len(self.keys)

    def repeated_keys(self) -> torch.Tensor:
        """The key rows that each query head meets: (head, head_dim, hidden)."""
        return self.keys.repeat_interleave(self.queries_per_key, dim=0)


Rows = Callable[[int], torch.Tensor]  # layer → (kv_head or head, head_dim, hidden), in any type that floats


class Reader(NamedTuple):
    """Reads one side of a layer's heads as it is stored, or both in float64."""

    keys: Rows
    queries: Rows
    folded: Callable[[int], Folded] | None = None  # layer → its folded heads; None where these are the stored ones

    def fold(self, layer: int) -> Folded:
        """The layer's heads with all gains folded in, and how positions turn them."""
        return self.folded(layer) if self.folded else Folded(*self(layer))

    def __call__(self, layer: int) -> Heads:
        return Heads(self.keys(layer).double(), self.queries(layer).double())


class HeadMetrics(NamedTuple):
    """Facts of every head's g in one layer, float64 but for the directions."""

    singvals: torch.Tensor  # (head, head_dim), descending
    directions: torch.Tensor  # (head, k, hidden), float32, right singular vectors; zero rows beyond the rank
    sym_eigs: torch.Tensor  # (head, 2·head_dim), signed, by falling magnitude
    fro_sq: torch.Tensor  # (head,), ‖g‖_F² from the singular values
    fro_sq_published: torch.Tensor  # (head,), ‖W_k W_qᵀ‖_F²
    trace: torch.Tensor  # (head,), tr g
    trace_of_square: torch.Tensor  # (head,), tr g²
    stretch: torch.Tensor  # (head,), ‖g v₁‖, from the factors
    scale: torch.Tensor  # (head,), ‖W_k‖_F·‖W_q‖_F, the magnitude that rounding scales with
    published_abs_cos: torch.Tensor  # (head,), |cos| of the first published direction with v₁
    published_crosstalk: torch.Tensor  # (head,), largest |cos| between two published directions

    @property
    def floor(self) -> torch.Tensor:
        """(head,) what rounding alone can leave in a singular value of g."""
        return rounding_floor(self.scale, self.singvals.shape[-1])

    @property
    def is_zero(self) -> torch.Tensor:
        """(head,) whether g is zero to rounding."""
        return self.singvals[..., 0] <= self.floor

    @property
    def is_flat(self) -> torch.Tensor:
        """(head,) whether g + gᵀ is zero to rounding."""
        return self.sym_eigs[..., 0].abs() <= 2 * self.floor


def head_metrics(heads: Heads, top: int) -> HeadMetrics:
    """Spectra, traces and top directions of every head of one layer.

    Parameters
    ----------
    heads : the layer's key and query rows, float64.
    top : k, how many right singular vectors to keep, at most min(head_dim, hidden).

    Notes
    -----
    The direction of a singular value at the rounding floor is arbitrary and stored as zero.
    """
    keys, queries = Householder.of(heads.keys), heads.queries  # of each key head; (head, head_dim, hidden)
    grouped = queries.unflatten(0, (-1, heads.queries_per_key))  # (kv_head, query of the group, …)
    sigma, vt = (x.flatten(0, 1) for x in product_svd(keys, Householder.of(grouped), top))  # (head, mode or k, …)
    sym_eigs = symmetric_eigenvalues(keys, grouped).flatten(0, 1)
    keys = heads.repeated_keys()  # (head, head_dim, hidden)
    head_dim = queries.shape[-2]
    scale = keys.norm(dim=(-2, -1)) * queries.norm(dim=(-2, -1))
    beyond = sigma[:, :top] <= rounding_floor(scale, head_dim)[:, None]
    small = queries @ keys.mT  # W_q W_kᵀ, (head, head_dim, head_dim)
    stretched = keys.mT @ (queries @ vt[:, 0, :, None])  # g v₁, (head, hidden, 1)
    published = published_directions(small, queries, top)
    crosstalk = (published @ published.mT).abs().masked_fill(torch.eye(top, dtype=torch.bool, device=vt.device), 0)
    return HeadMetrics(
        singvals=torch.nn.functional.pad(sigma, (0, head_dim - sigma.shape[-1])),
        directions=vt.masked_fill(beyond[..., None], 0).float(),
        sym_eigs=sym_eigs,
        fro_sq=sigma.square().sum(-1),
        fro_sq_published=small.square().sum((-2, -1)),
        trace=small.diagonal(dim1=-2, dim2=-1).sum(-1),
        trace_of_square=(small * small.mT).sum((-2, -1)),
        stretch=stretched.norm(dim=(-2, -1)),
        scale=scale,
        published_abs_cos=(published[:, 0] * vt[:, 0]).sum(-1).abs(),
        published_crosstalk=crosstalk.amax((-2, -1)),
    )


def rounding_floor(scale: torch.Tensor, head_dim: int) -> torch.Tensor:
    """head_dim·eps·‖W_k‖_F·‖W_q‖_F: a singular value of g no larger than this is rounding.

    It is the backward error of the two factors (of order √head_dim·eps, Higham 2002, §19.3) with room.
    """
    return head_dim * EPS * scale


def curvature(sym_eigs: torch.Tensor) -> torch.Tensor:
    """Share of the energy of g + gᵀ in its negative eigenvalues, Σ_{λ<0} λ² / Σ λ², in [0, 1].

    Parameters
    ----------
    sym_eigs : (..., mode) signed eigenvalues. NaN where all are zero.

    >>> float(curvature(torch.tensor([3.0, -4.0])))
    0.64
    """
    energy = sym_eigs.double().square()
    return torch.where(sym_eigs < 0, energy, 0).sum(-1) / energy.sum(-1)


def published_directions(small: torch.Tensor, queries: torch.Tensor, top: int) -> torch.Tensor:
    """V of W_k W_qᵀ pushed through W_q and scaled to unit length, as published: (head, k, hidden)."""
    _, vt = right_svd(small.mT)
    pushed = vt[:, :top] @ queries
    return torch.nn.functional.normalize(pushed, dim=-1)
