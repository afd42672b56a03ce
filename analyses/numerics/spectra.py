"""Shared linear algebra: entropies of spectra, factored products, and what chance gives.

Axes in shape comments: layer, head, out, in, hidden, mode (index of a singular value).
Everything is float64 unless said otherwise; functions of matrices and spectra take leading batch axes.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal, eigvalsh_tridiagonal, lapack

EPS = torch.finfo(torch.float64).eps
SMALL = 160  # side; measured: 16 vectors at 128, 1.2 ms of a full decomposition against 1.4; at 192, 2.6 against 2.5


def signed_permutation(size: int, seeds: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A random order of so many coordinates, and random signs ±1 for them, float64."""
    rng = np.random.default_rng(seeds)
    return torch.from_numpy(rng.permutation(size)), torch.from_numpy(rng.choice([-1.0, 1.0], size))


def factored_inner_products(
    left_a: torch.Tensor, right_a: torch.Tensor, left_b: torch.Tensor, right_b: torch.Tensor
) -> torch.Tensor:
    """Inner products of the maps leftᵀ·right of all heads of a with those of all heads of b, without forming a map.

    Parameters
    ----------
    left : (kv_head, head_dim, hidden), each shared by the consecutive heads of a group.
    right : (head, head_dim, hidden).

    Returns
    -------
    (head, head') float64: Σ (left_a left_bᵀ)∘(right_a right_bᵀ), products in the type of the factors.
    """
    grouped_a, grouped_b = ((len(x), len(y) // len(x), x.shape[1]) for x, y in ((left_a, right_a), (left_b, right_b)))
    right = (right_a.flatten(0, 1) @ right_b.flatten(0, 1).mT).view(*grouped_a, *grouped_b)
    left = left_a.flatten(0, 1) @ left_b.flatten(0, 1).mT
    left = left.view(grouped_a[0], 1, grouped_a[2], grouped_b[0], 1, grouped_b[2])
    return right.mul_(left).sum((2, 5), dtype=torch.float64).view(len(right_a), len(right_b))


def spectral_entropy(sigma: torch.Tensor) -> torch.Tensor:
    """Entropy of a spectrum, S = −Σ p ln p with p_i = σ_i²/Σσ², in nats.

    Parameters
    ----------
    sigma : (..., mode) singular values, non-negative.

    Returns
    -------
    (...) entropies in [0, ln mode]; NaN where the whole spectrum is zero.

    >>> round(float(spectral_entropy(torch.ones(4, dtype=torch.float64))), 6) == round(math.log(4), 6)
    True
    """
    return energy_entropy(sigma.square())


def energy_entropy(energy: torch.Tensor) -> torch.Tensor:
    """`spectral_entropy` from σ² directly; slightly negative rounding residues count as zero."""
    energy = energy.clamp_min(0)
    return torch.special.entr(energy / energy.sum(-1, keepdim=True)).sum(-1)


def effective_rank(sigma: torch.Tensor) -> torch.Tensor:
    """e^S of the spectral entropy, between 1 and the number of modes (Roy & Vetterli 2007)."""
    return spectral_entropy(sigma).exp()


def squared_singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """σ² of a (..., out, in) matrix, descending, through the Gram matrix of its smaller side.

    The eigenvalues of the Gram matrix are σ² with an absolute error of at most about
    (out + in)·eps·Σσ², so that a σ below 1e-8·σ₁ is lost; entropies and energy shares do not notice.
    """
    wide = matrix.shape[-2] <= matrix.shape[-1]
    return eigenvalues(gram(matrix if wide else matrix.mT)).flip(-1).clamp_min(0)


def gram(rows: torch.Tensor) -> torch.Tensor:
    """rows·rowsᵀ of a (..., row, column) matrix, in its own precision; (..., row, row).

    On a CPU by NumPy, which notices that both factors are the same memory and computes one triangle: 1.8 times as
    fast as the general product (side 1,024 by 3,072, one core of an AMD EPYC: 76 against 136 ms).
    """
    if rows.device.type != "cpu":
        return rows @ rows.mT
    array = rows.numpy()
    return torch.from_numpy(array @ array.swapaxes(-1, -2))


def eigenvalues(symmetric: torch.Tensor) -> torch.Tensor:
    """Ascending eigenvalues of symmetric matrices, (..., mode).

    On a CPU by NumPy's LAPACK, which is the faster one there by a little (side 1,024: 70 against 101 ms).
    """
    if symmetric.device.type != "cpu":
        return torch.linalg.eigvalsh(symmetric)
    return torch.from_numpy(np.linalg.eigvalsh(symmetric.numpy()))


def singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """Singular values of (..., row, column) matrices, descending, (..., mode), right to a few eps·σ₁."""
    return torch.linalg.svdvals(matrix) if matrix.device.type == "cpu" else _by_eigenvalues(matrix)


def right_svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Singular values and right singular vectors of (..., row, column) matrices, (..., mode) and (..., mode, column).

    On a CPU by NumPy's LAPACK (16 matrices of side 128: 42 against 103 ms). On a GPU the vectors are those of the Gram
    matrix, of σ² instead of σ: of a σ below 1e-8·σ₁ any that is orthogonal to the others.
    """
    if matrix.device.type == "cpu":
        _, sigma, vt = map(torch.from_numpy, np.linalg.svd(matrix.numpy(), full_matrices=False))
        return sigma, vt
    return _by_eigenvalues(matrix), _by_gram(matrix)


# torch's SVD on a GPU is Jacobi's, which ends at a tolerance of its own; a symmetric matrix's eigenvalues do not.


def _by_eigenvalues(matrix: torch.Tensor) -> torch.Tensor:
    """Singular values as the upper half of the eigenvalues ±σ of [[0, M], [Mᵀ, 0]]: no square loses digits."""
    rows, columns = matrix.shape[-2:]
    corner = torch.nn.functional.pad(matrix, (rows, 0, 0, columns))
    return eigenvalues(corner + corner.mT).flip(-1)[..., : min(rows, columns)].clamp_min(0)


def _by_gram(matrix: torch.Tensor) -> torch.Tensor:
    _, vectors = torch.linalg.eigh(gram(matrix.mT))
    return vectors.mT.flip(-2)[..., : min(matrix.shape[-2:]), :]


def leading_modes(symmetric: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All eigenvalues of a (side, side) symmetric matrix, ascending, and the eigenvectors of the k largest.

    One reduction to tridiagonal form (4/3·side³ operations) serves both, and only k vectors are carried back through it
    (4·k·side²), where a full decomposition makes all of them: at side 1,024 a third of the time. Up to SMALL that is
    the faster way.

    Returns
    -------
    (side,) and (side, k), the last column belonging to the largest; k is at most the side.
    """
    side = len(symmetric)
    if symmetric.device.type != "cpu":
        values, vectors = torch.linalg.eigh(symmetric)
        return values, vectors[:, side - k :]
    if side <= SMALL:
        values, vectors = map(torch.from_numpy, np.linalg.eigh(symmetric.numpy()))
        return values, vectors[:, side - k :]
    array = np.array(symmetric.numpy(), order="F")
    reflectors, diagonal, beside, tau, _ = lapack.dsytrd(array, lower=1, lwork=64 * side, overwrite_a=1)
    values = eigvalsh_tridiagonal(diagonal, beside, lapack_driver="sterf")
    _, vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=(side - k, side - 1))
    # The reflectors lie below the first subdiagonal, as those of a QR factor of the rows from the second on.
    rows, _, _ = lapack.dormqr("L", "N", reflectors[1:, :-1], tau, vectors[1:], 64 * side)
    return torch.from_numpy(values), torch.from_numpy(np.concatenate([vectors[:1], rows]))


class Householder(NamedTuple):
    """QR of (..., head_dim, hidden) rows, float64: rowsᵀ = Q·[r; 0], Q square and orthogonal and never formed."""

    reflectors: torch.Tensor  # (..., hidden, mode), mode = min(head_dim, hidden)
    scales: torch.Tensor  # (..., mode)
    r: torch.Tensor  # (..., mode, head_dim)

    @classmethod
    def of(cls, rows: torch.Tensor) -> "Householder":
        packed, scales = torch.geqrf(rows.mT)
        mode = scales.shape[-1]
        return cls(packed[..., :mode], scales, packed[..., :mode, :].triu())

    def turned(self, columns: torch.Tensor, *, back: bool = False) -> torch.Tensor:
        """Qᵀ·columns, or Q·columns, of (..., hidden, column)."""
        return torch.ormqr(self.reflectors, self.scales, columns, transpose=not back)


def product_svd(left: Householder, right: Householder, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Singular values and the first right singular vectors of leftᵀ·right without forming it, from QR of both sides.

    leftᵀ = Q_l R_l and rightᵀ = Q_r R_r give leftᵀ·right = Q_l (R_l R_rᵀ) Q_rᵀ, so that one small
    SVD is enough; its errors are of order eps·‖left‖·‖right‖ also for rank-deficient factors.

    Measured on one core of a busy machine (best of five, 4 heads): 11 to 13 ms a head at head_dim 128,
    hidden 1,024 and 27 to 29 ms at hidden 2,560, singular values right to 3e-15·σ₁ and vectors orthonormal
    to 7e-15 for full, graded (1 … 1e-10) and deficient rank. Square roots of the small Gram matrices take
    13 to 15 and 28 to 32 ms, no gain in time, and their vectors are not orthonormal below full rank.

    Parameters
    ----------
    left : of (..., head_dim, hidden) rows, float64; right : of (..., group, head_dim, hidden), which share one left.
    For heads, W_k and W_q.
    top : how many vectors, at most mode.

    Returns
    -------
    sigma : (..., group, mode) descending, vt : (..., group, top, hidden), with mode = min(head_dim, hidden).
    """
    sigma, vt = right_svd(left.r.unsqueeze(-3) @ right.r.mT)
    beyond = right.reflectors.shape[-2] - vt.shape[-1]
    return sigma, right.turned(torch.nn.functional.pad(vt[..., :top, :].mT, (0, 0, 0, beyond)), back=True).mT


def binary_size(matrix: torch.Tensor) -> torch.Tensor:
    """The smallest power of two above the Frobenius norm of (..., out, in) matrices, (...) float64; 1 for a zero one.

    To divide by it loses nothing, and leaves a norm between ½ and 1, so that float32 products of such matrices neither
    underflow nor overflow, however small or large the weights are.

    >>> binary_size(torch.tensor([[3.0, 4.0]])).item()
    8.0
    """
    norm = torch.linalg.vector_norm(matrix, dim=(-2, -1), dtype=torch.float64)
    return torch.exp2(torch.frexp(norm).exponent.double())


@contextmanager
def full_float32() -> Iterator[None]:
    """Products of float32 matrices in float32 also on a GPU that has TensorFloat-32, whatever is set outside."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_singular_values(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Singular values of leftᵀ·right alone, as `product_svd`: those of R_l R_rᵀ.

    Parameters
    ----------
    left, right : (..., head_dim, hidden), float64.

    Returns
    -------
    (..., head_dim) descending, zero-padded where hidden < head_dim.
    """
    r_left = torch.linalg.qr(left.mT, mode="r").R  # (..., min(hidden, head_dim), head_dim)
    r_right = torch.linalg.qr(right.mT, mode="r").R
    sigma = singular_values(r_left @ r_right.mT)
    return torch.nn.functional.pad(sigma, (0, left.shape[-2] - sigma.shape[-1]))


def symmetric_eigenvalues(left: Householder, right: torch.Tensor) -> torch.Tensor:
    """Signed eigenvalues of g + gᵀ for g = leftᵀ·right, off the null space, by falling magnitude.

    With X = [left; right] and J = [[0, I], [I, 0]], g + gᵀ = Xᵀ J X. A QR of Xᵀ turns this into the symmetric
    R J Rᵀ, which stays right to a few eps·λ_max for rank-deficient heads (5e-15 measured; a square root of X Xᵀ errs by
    2e-8 there and is no faster), where the unsymmetric J X Xᵀ has complex eigenvalues and a Cholesky factor does not
    exist. The reflections of left are applied to all that share it, and what they leave of right beyond left's span is
    reflected in its turn.

    Parameters
    ----------
    left : of (..., head_dim, hidden) rows, float64; right : (..., group, head_dim, hidden). For heads, W_k and W_q.

    Returns
    -------
    (..., group, 2·head_dim) eigenvalues, zero-padded where hidden < head_dim.
    """
    group, head_dim, mode = *right.shape[-3:-1], left.r.shape[-2]
    turned = left.turned(right.flatten(-3, -2).mT)  # (..., hidden, group·head_dim)
    turned = turned.unflatten(-1, (group, head_dim)).movedim(-2, -3)
    beyond = torch.linalg.qr(turned[..., mode:, :], mode="r").R  # (..., group, its mode, head_dim)
    half = left.r.unsqueeze(-3) @ torch.cat([turned[..., :mode, :], beyond], dim=-2).mT
    whole = torch.nn.functional.pad(half, (0, 0, 0, half.shape[-1] - mode))  # R J Rᵀ is this and its transpose
    signed = eigenvalues(whole + whole.mT)
    signed = signed.gather(-1, signed.abs().argsort(dim=-1, descending=True))
    return torch.nn.functional.pad(signed, (0, 2 * head_dim - signed.shape[-1]))


def page_entropy(rows: int, columns: int) -> float:
    """Expected spectral entropy of an iid matrix, S₀ = ln m − m/(2n), m ≤ n its sides, in nats.

    Page (1993), Phys. Rev. Lett. 71, 1291, for large n. For real entries without heavy tails it is too
    high by about 0.4/m in square matrices (simulated, m = 16 to 256), less in oblong ones: the
    effective rank by 1 % at m = 32. Below that use a simulation.
    """
    small, large = sorted((rows, columns))
    return math.log(small) - small / (2 * large)


def haar(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """A (rows, columns) matrix with orthonormal columns, uniform over all such.

    Raises ValueError unless rows ≥ columns.
    """
    if rows < columns:
        raise ValueError(f"{columns} orthonormal columns do not fit into {rows} dimensions")
    gaussian = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    # Without the signs, Q depends on the QR convention and is not uniform (Mezzadri 2007).
    return q * r.diagonal().sign()
