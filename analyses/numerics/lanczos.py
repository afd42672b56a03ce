"""Spectral entropy of a large matrix from its products with random vectors (stochastic Lanczos quadrature).

The spectral entropy of Δ (m × n, m ≤ n) is a trace, S = ln m − tr f(mΔΔᵀ/‖Δ‖²)/m with f(y) = y ln y. Stochastic Lanczos
quadrature estimates it from products with Δ alone: for a random unit vector z, a few Lanczos steps give a Gauss rule
for zᵀ f z, whose mean over z is the trace. The spread over z is large (f is large), but tr y is
known exactly, since it is ‖Δ‖²: what f has in common with y is taken from there, and only the rest is sampled.

    operations   4·m·n a vector and step, 16 vectors or more, 4 to 16 steps; the Gram matrix alone is 2·m²·n
    precision    products in float32, whose rounding moves S by less than 1e-5; the small eigenvalue problems in float64

The standard error is that of the mean over uniform vectors, by its formula, with the change of the last Lanczos step,
which bounds the bias of the rule, added in quadrature. Spectra that need more steps or vectors than the exact answer
costs get none.

The chance level with Haar-random singular vectors needs no spectrum either: â − P b̂ Qᵀ is applied to a vector at the
price of two products and four fast transforms, with P and Q orthogonal matrices made of two Hartley transforms
with random signs between them. They are not Haar, but asymptotically free of any fixed matrix, which is what fixes
the spectrum of a large difference (Anderson & Farrell, Adv. Math. 255, 2014).

References
----------
Ubaru, Chen & Saad, SIAM J. Matrix Anal. Appl. 38 (2017). Bracewell, J. Opt. Soc. Am. 73 (1983): Hartley transform.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from analyses.numerics.spectra import full_float32

PILOT = 16  # vectors that say how many are needed, and the fewest: on a CPU their products take 1.2 times those of 8
TARGET = 0.004  # standard error of the entropy aimed at, that is 0.4 % of the effective rank: 1 % is then 2.5 of them
FEWEST_STEPS, MOST_STEPS = 4, 16
SETTLED = 0.001  # change of the entropy, in nats, by one more Lanczos step that ends the steps
EXHAUSTED = 1e-6  # relative to the mean eigenvalue: a smaller remainder is float32 rounding
SHARE = 16  # at most side/SHARE vectors: with more the exact spectrum is as fast

Operator = Callable[[torch.Tensor], torch.Tensor]  # rows v (vector, m) → rows ΔΔᵀv, float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """An estimated spectral entropy."""

    entropy: float  # nats
    error: float  # its standard error, which is the effective rank's relative one


@full_float32()
def sampled_entropy(
    apply: Operator, side: int, energy: float, generator: torch.Generator, device: torch.device
) -> Sampled | None:
    """Spectral entropy of Δ from products with ΔΔᵀ; None where the exact spectrum would be no dearer.

    Parameters
    ----------
    apply : rows v → rows ΔΔᵀv, float32 (vector, side).
    side : m, the smaller side of Δ.
    energy : ‖Δ‖².
    generator : of the vectors, on the CPU.
    """
    scale = side / energy
    pilot = lanczos(apply, _vectors(side, PILOT, generator, device), scale)
    steps, change = pilot.diagonal.shape[1], pilot.change
    wanted = math.ceil(PILOT * (_estimate(pilot, side)[1] / TARGET) ** 2)
    if change > SETTLED or wanted > max(PILOT, side // SHARE):
        return None
    if wanted > PILOT:
        more = lanczos(apply, _vectors(side, wanted - PILOT, generator, device), scale, steps=steps)
        pilot = Tridiagonal(*(torch.cat(both) for both in zip(pilot[:2], more[:2], strict=True)), change)
    mean, error = _estimate(pilot, side)
    return Sampled(entropy=math.log(side) - mean, error=math.hypot(error, change))


class Tridiagonal(NamedTuple):
    """What Lanczos makes of a matrix, for several first vectors at once, float64."""

    diagonal: torch.Tensor  # (vector, step)
    off_diagonal: torch.Tensor  # (vector, step); the last one is the remainder
    change: float  # of the mean of f by the last step


def lanczos(apply: Operator, first: torch.Tensor, scale: float, *, steps: int | None = None) -> Tridiagonal:
    """Lanczos with full reorthogonalisation, until the mean of f settles or for so many steps.

    first : (vector, side) float32 unit rows. scale : of the matrix, so that its mean eigenvalue is 1.
    """
    basis, diagonal, off_diagonal = [first], [], []
    last, change = math.inf, math.inf
    for step in range(1, (steps or MOST_STEPS) + 1):
        image = apply(basis[-1]) * scale
        diagonal.append((basis[-1].double() * image.double()).sum(1))
        for vectors in basis:
            image = image - vectors * (vectors * image).sum(1, keepdim=True)
        length = torch.linalg.vector_norm(image, dim=1, keepdim=True)
        off_diagonal.append(length.double()[:, 0])
        now = Tridiagonal(torch.stack(diagonal, 1), torch.stack(off_diagonal, 1), change)
        if step >= FEWEST_STEPS - 1 and steps is None:
            mean = _estimate(now, first.shape[1])[0]
            last, change = mean, abs(mean - last)
            if change <= SETTLED:
                break
        # A vector whose Krylov space is exhausted goes on as zero, which leaves its rule as it is.
        basis.append(torch.where(length > EXHAUSTED, image / length.clamp_min(EXHAUSTED), 0))
    return now._replace(change=change)


def _estimate(rules: Tridiagonal, side: int) -> tuple[float, float]:
    """Mean of f(y) = y ln y over the spectrum, and its standard error, with what f shares with y known exactly."""
    matrix = torch.diag_embed(rules.diagonal)
    beyond = rules.off_diagonal[:, :-1]
    matrix = matrix + torch.diag_embed(beyond, 1) + torch.diag_embed(beyond, -1)  # (vector, step, step)
    nodes, modes = torch.linalg.eigh(matrix.cpu())
    nodes, weights = nodes.clamp_min(0), modes[:, 0].square()  # (vector, node)
    values = torch.special.xlogy(nodes, nodes)
    mean_y, mean_f = (weights * nodes).sum(1), (weights * values).sum(1)  # (vector,)
    centred = nodes - mean_y.mean()
    spread = (weights * centred.square()).sum()
    slope = (weights * centred * (values - mean_f.mean())).sum() / spread if spread > 0 else 0.0
    rest = values - slope * (nodes - 1)  # (vector, node)
    mean = (weights * rest).sum() / len(weights)
    # Var zᵀRz = 2/(m + 2)·(the variance of R's eigenvalues) for z uniform on the sphere of m dimensions; the rules know
    # the latter far better than the spread of a few means does.
    variance = (weights * (rest - mean).square()).sum() / len(weights)
    return float(mean), math.sqrt(2 / (side + 2) * float(variance) / len(weights))


def _vectors(side: int, count: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Unit rows, uniform on the sphere, (vector, side) float32."""
    return torch.nn.functional.normalize(torch.randn(count, side, generator=generator)).to(device)


# --- operators ----------------------------------------------------------------------------------


def dense(matrix: torch.Tensor) -> Operator:
    """v → ΔΔᵀv for a float32 matrix (out, in) of either orientation."""
    small = _upright(matrix)
    return lambda rows: _product(_product(rows, small), small.mT)


def rotated_difference(a: torch.Tensor, b: torch.Tensor, left: "Mixing", right: "Mixing") -> Operator:
    """The same for a − P b Qᵀ; a, b float32 of one shape, left and right the mixings of its small and large side."""
    a, b = _upright(a), _upright(b)

    def apply(rows: torch.Tensor) -> torch.Tensor:
        image = _product(rows, a) - right(_product(left.transposed(rows), b))
        return _product(image, a.mT) - left(_product(right.transposed(image), b.mT))

    return apply


def symmetric(matrix: torch.Tensor) -> Operator:
    """v → M v for a positive semi-definite float32 matrix (side, side), which stands for ΔΔᵀ."""
    return lambda rows: _product(rows, matrix)


def rotated_sum(a: torch.Tensor, b: torch.Tensor, turn: "Mixing") -> Operator:
    """The same for a + P b Pᵀ of two such matrices."""
    return lambda rows: _product(rows, a) + turn(_product(turn.transposed(rows), b))


def _upright(matrix: torch.Tensor) -> torch.Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT  # (small, large)


def _product(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """rows @ matrix for a few rows; by NumPy on a CPU, a transposed matrix from the left: half as much time again."""
    if rows.device.type != "cpu":
        return rows @ matrix
    if matrix.is_contiguous():
        return torch.from_numpy(rows.numpy() @ matrix.numpy())
    return torch.from_numpy((matrix.mT.numpy() @ rows.numpy().T).T)


@dataclass(frozen=True, slots=True)
class Mixing:
    """An orthogonal matrix P = H D₂ Π H D₁: Hartley transforms, random signs D and a random order Π."""

    first: torch.Tensor  # (side,) signs D₁
    second: torch.Tensor  # (side,) signs D₂
    order: torch.Tensor  # (side,)
    back: torch.Tensor  # (side,) the inverse order

    @classmethod
    def draw(cls, side: int, generator: torch.Generator, device: torch.device) -> "Mixing":
        first, second = (torch.randint(0, 2, (side,), generator=generator) * 2.0 - 1 for _ in range(2))
        order = torch.randperm(side, generator=generator)
        return cls(*(x.to(device) for x in (first, second, order, order.argsort())))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """P·v for rows v, (vector, side)."""
        return hartley(self.second * hartley(self.first * rows)[:, self.order])

    def transposed(self, rows: torch.Tensor) -> torch.Tensor:
        """Pᵀ·v."""
        return self.first * hartley((self.second * hartley(rows))[:, self.back])


def hartley(rows: torch.Tensor) -> torch.Tensor:
    """The discrete Hartley transform of rows, orthogonal and its own inverse: Re F − Im F of the Fourier transform."""
    half = torch.fft.rfft(rows, norm="ortho")  # (vector, side // 2 + 1)
    mirrored = (half.real + half.imag)[:, 1 : (rows.shape[1] + 1) // 2].flip(1)
    return torch.cat([half.real - half.imag, mirrored], dim=1)
