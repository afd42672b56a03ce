"""How alike are two tensors of one role, and what would chance give?

Two things are asked of a pair of adjacent layers: how large the residual is, and how many
directions it fills. The first has a closed-form null, a random matching of the two tensors'
entries. The second has three: an iid matrix (Page), the residual's own entries shuffled, and two
matrices that keep the layers' own singular values while their singular vectors are Haar-random.
Only the last is a fair "as full as it can be", since trained matrices are themselves of low rank.

Spectra come from the Gram matrix of the smaller side and its symmetric eigenvalues in float64:
twice as fast as an SVD, and a spectral entropy does not see the lost digits of tiny σ.
"""

import math
from dataclasses import dataclass, replace

import torch

from analyses import spectra

PAGE_SIDE = 32  # smallest side for Page's entropy; below, its 1/n corrections exceed 1 %
HAAR_SIDE = 256  # one draw from this side on and 256/side below: the effective rank is then right to 0.5 %
IDENTICAL = 64 * spectra.EPS  # a residual below this is rounding of the two divisions by a norm


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyPair:
    """One family in two adjacent layers, tensors a and b of N entries each; None has a reason in the record."""

    cos: float | None = None  # ⟨a,b⟩/(‖a‖‖b‖), in [−1, 1]
    resid_norm: float | None = None  # ‖b/‖b‖ − a/‖a‖‖, in [0, 2]; √2 if orthogonal
    scalar_resid: float | None = None  # √(1−cos²), what the best scalar multiple of a leaves of b/‖b‖; in [0, 1]
    scalar_explained: float | None = None  # cos², what it explains; in [0, 1]
    null_cos: float | None = None  # mean of cos under a random matching of entries
    null_sd: float | None = None  # its standard deviation; 0 if either tensor is constant
    null_resid: float | None = None  # √(2 − 2·null_cos)
    pearson: float | None = None  # correlation of the entries; None if either tensor is constant
    z: float | None = None  # (cos − null_cos)/null_sd = pearson·√(N−1); None if either is constant
    # Spectrum of Δ = b/‖b‖ − a/‖a‖, whose smaller side is m; matrices only.
    resid_eff_rank: float | None = None  # e^S, in [1, m]
    resid_spec_entropy: float | None = None  # S, nats, in [0, ln m]
    eff_rank_page: float | None = None  # chance: an iid matrix of this shape; None below side 32
    eff_rank_shuffled: float | None = None  # chance: Δ with its entries permuted
    eff_rank_haar: float | None = None  # chance: the layers' own singular values, Haar-random singular vectors
    eff_rank_ratio: float | None = None  # resid_eff_rank / eff_rank_haar
    spectrum_error: float | None = None  # |Σσ² − ‖Δ‖²|/‖Δ‖², a check on the eigenvalues


def likeness(a: torch.Tensor, b: torch.Tensor) -> FamilyPair:
    """Cosine and residual of two tensors beside their chance level, in closed form; no spectrum.

    Under a uniformly random permutation of the entries of b,
    E cos = N ā b̄/(‖a‖‖b‖) and sd = √(Σ(a−ā)²·Σ(b−b̄)²/(N−1))/(‖a‖‖b‖).
    For entries of mean zero that is 0 ± 1/√(N−1). Gains are positive, so theirs is near 1.

    Parameters
    ----------
    a, b : equal shapes, float64, neither all zero.

    Raises
    ------
    ValueError for unequal shapes or an all-zero tensor.

    >>> one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> round(likeness(one, one.flip(0)).resid_norm ** 2, 12)
    2.0
    """
    if a.shape != b.shape or not a.any() or not b.any():
        raise ValueError(f"two non-zero tensors of one shape are needed, got {list(a.shape)} and {list(b.shape)}")
    a, b = a.flatten() / torch.linalg.vector_norm(a), b.flatten() / torch.linalg.vector_norm(b)
    cos = float(a @ b)
    null_cos = len(a) * float(a.mean()) * float(b.mean())
    constant = bool(a.min() == a.max()) or bool(b.min() == b.max())
    spread_a, spread_b = a - a.mean(), b - b.mean()
    spreads = float(torch.linalg.vector_norm(spread_a)) * float(torch.linalg.vector_norm(spread_b))
    null_sd = 0.0 if constant else spreads / math.sqrt(len(a) - 1)
    return FamilyPair(
        cos=cos,
        resid_norm=float(torch.linalg.vector_norm(b - a)),  # √(2−2cos) cancels near cos = 1
        scalar_resid=float(torch.linalg.vector_norm(b - cos * a)),  # and so does √(1−cos²)
        scalar_explained=cos**2,
        null_cos=null_cos,
        null_sd=null_sd,
        null_resid=math.sqrt(max(0.0, 2 - 2 * null_cos)),
        pearson=None if constant else float(spread_a @ spread_b) / spreads,
        z=None if constant else (cos - null_cos) / null_sd,
    )


def with_rank(
    pair: FamilyPair,
    a: "Unit",
    b: "Unit",
    rotations: "Rotations",
    generator: torch.Generator,
) -> FamilyPair:
    """The pair with the spectrum of its residual and what chance makes of it.

    Parameters
    ----------
    a, b : the two matrices with their singular values; more than one entry.
    rotations : Haar draws for this shape, from `Rotations.draw`.
    generator : CPU generator of the entry shuffle.

    Returns
    -------
    The pair as it was where the matrices are identical up to rounding: nothing is left to have a spectrum.
    """
    delta = b.matrix - a.matrix
    energy = float(delta.square().sum())
    if math.sqrt(energy) <= IDENTICAL:
        return pair
    sigma_sq = spectra.squared_singular_values(delta)
    entropy = float(spectra.energy_entropy(sigma_sq))
    order = torch.randperm(delta.numel(), generator=generator).to(delta.device)
    shuffled = delta.flatten()[order].view(delta.shape)
    haar = rotations.effective_rank(a.sigma, b.sigma)
    return replace(
        pair,
        resid_eff_rank=math.exp(entropy),
        resid_spec_entropy=entropy,
        eff_rank_page=math.exp(spectra.page_entropy(*delta.shape)) if min(delta.shape) >= PAGE_SIDE else None,
        eff_rank_shuffled=float(spectra.energy_entropy(spectra.squared_singular_values(shuffled)).exp()),
        eff_rank_haar=haar,
        eff_rank_ratio=math.exp(entropy) / haar,
        spectrum_error=abs(float(sigma_sq.sum()) - energy) / energy,
    )


@dataclass(frozen=True, slots=True)
class Unit:
    """A non-zero matrix scaled to Frobenius norm 1, with its singular values, which serve two pairs."""

    matrix: torch.Tensor  # (out, in) float64
    sigma: torch.Tensor  # (mode,) descending

    @classmethod
    def of(cls, weight: torch.Tensor) -> "Unit":
        matrix = weight / torch.linalg.vector_norm(weight)
        return cls(matrix, spectra.squared_singular_values(matrix).sqrt())


@dataclass(frozen=True, slots=True)
class Rotations:
    """Relative rotations between the singular vectors of two unrelated matrices of one shape.

    The spectrum of U_a S_a V_aᵀ − U_b S_b V_bᵀ depends on U_aᵀU_b and V_aᵀV_b alone, so a's
    vectors may lie on the axes: Δ = [S_a 0] − P S_b Qᵀ with P Haar (m×m) and Q a Haar frame (n×m).
    ΔΔᵀ then needs only the first m rows of Q. The draws do not depend on the matrices and serve
    every pair of one shape.
    """

    left: torch.Tensor  # P, (draw, mode, mode)
    right: torch.Tensor  # first m rows of Q, (draw, mode, mode)

    @classmethod
    def draw(cls, rows: int, columns: int, generator: torch.Generator, *, device: str) -> "Rotations":
        small, large = sorted((rows, columns))
        draws = max(1, HAAR_SIDE // small)
        pairs = [
            (spectra.haar(small, small, generator), spectra.haar(large, small, generator)[:small]) for _ in range(draws)
        ]
        left, right = (torch.stack(side).to(device) for side in zip(*pairs, strict=True))
        return cls(left, right)

    def effective_rank(self, sigma_a: torch.Tensor, sigma_b: torch.Tensor) -> float:
        """Mean over draws of the effective rank of [S_a 0] − P S_b Qᵀ; sigma_* (mode,) float64."""
        scaled = self.left * sigma_b  # P S_b
        cross = sigma_a[:, None] * (self.right @ scaled.mT)  # [S_a 0] Q S_b Pᵀ
        gram = torch.diag(sigma_a.square()) + scaled @ scaled.mT - cross - cross.mT
        energy = torch.linalg.eigvalsh(gram)  # (draw, mode)
        return float(spectra.energy_entropy(energy).exp().mean())
