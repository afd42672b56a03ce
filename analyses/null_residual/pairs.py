"""Comparison of two tensors of one role, with what chance would give.

Two things are asked of a pair of adjacent layers: how large the residual is, and how many
directions it fills. The first has a closed-form null, a random matching of the two tensors'
entries. The second has three: an iid matrix (Page), the residual's own entries shuffled, and two
matrices that keep the layers' own singular values while their singular vectors are Haar-random.
Only the last is a fair "as full as it can be", since trained matrices are themselves of low rank.

What it costs, for matrices of sides m ≤ n: the numbers without a spectrum take one pass over a new matrix and one over
each pair (`blockwise`). A spectrum is exact by default: the Gram matrix of the smaller side
(m²·n operations, as one triangle suffices) and its symmetric eigenvalues (4/3·m³, half of them bound by memory), in
float64; faster than an SVD, and a spectral entropy does not see the lost digits of tiny σ. There are four of them a
pair: the residual, its shuffled entries, the next layer's own, and the Haar null with one more product of side m. From
side SAMPLED_SIDE on they may be sampled instead (`lanczos`), and are so unless the exact ones are asked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from analyses.numerics import blockwise, lanczos, spectra

PAGE_SIDE = 32  # smallest side for Page's entropy; below, its 1/n corrections exceed 1 %
HAAR_SIDE = 256  # one draw from this side on and 256/side below: the effective rank is then right to 0.5 %
SAMPLED_SIDE = 512  # spectra of a smaller side are exact also when sampling is asked for: they cost no more there
SPECTRA = ("auto", "exact", "sampled", "none")
"""Of the residuals: exact; sampled from SAMPLED_SIDE on; none; auto, see `settled`."""

COARSEST = 2.0**-6  # more than rounding to bfloat16, the coarsest type of weights, leaves of a copy (2^-7)
IDENTICAL = 64 * spectra.EPS  # a residual below this is rounding of the two divisions by a norm


def settled(asked: str, hidden: int) -> str:
    """What was asked for, of SPECTRA, without an "auto": sampled where the stream is wide enough, else exact.

    No matrix that reads or writes a narrower stream has a smaller side of SAMPLED_SIDE.

    >>> settled("auto", 256), settled("auto", 1024), settled("exact", 1024)
    ('exact', 'sampled', 'exact')
    """
    return asked if asked != "auto" else "sampled" if hidden >= SAMPLED_SIDE else "exact"


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
    resid_eff_rank_error: float | None = None  # standard error where sampled; 0 where the spectrum is exact
    eff_rank_ratio_error: float | None = None  # the same, of both together
    spectrum_error: float | None = None  # |Σσ² − ‖Δ‖²|/‖Δ‖², a check on the eigenvalues


class Side:
    """One tensor of a pair, with what both of its pairs ask of it."""

    def __init__(self, stored: torch.Tensor):
        self.stored = stored.contiguous()  # in any type that floats; matrices (out, in)
        self.size = stored.numel()
        total, square = blockwise.sums(lambda x: (float(x.sum()), blockwise.dot(x, x)), self.stored)
        self.norm = math.sqrt(square)  # Frobenius
        self.mean = total / self.size
        flat = self.stored.view(-1)
        head = flat[: blockwise.BLOCK]
        self.is_constant = bool((head == head[0]).all()) and bool((flat == head[0]).all())
        energy = square - total * self.mean  # ‖a − ā‖², if little cancels: not so for a gain
        if self.has_mean(energy, square):
            (energy,) = blockwise.sums(lambda x: (float((x - self.mean).square().sum()),), self.stored)
        self.spread = math.sqrt(energy)
        self._sigma: torch.Tensor | None = None

    @property
    def values(self) -> torch.Tensor:
        """Its entries in float64, made anew."""
        return self.stored.double()

    @staticmethod
    def has_mean(energy: float, square: float) -> bool:
        """Whether a difference of `square` and what makes it `energy` loses digits: more than a bit, that is."""
        return energy < square / 2

    @property
    def sigma(self) -> torch.Tensor:
        """(mode,) singular values at Frobenius norm 1, descending; computed once."""
        if self._sigma is None:
            self._sigma = spectra.squared_singular_values(self.values).sqrt() / self.norm
        return self._sigma


def likeness(a: Side, b: Side) -> FamilyPair:
    """Cosine and residual of two tensors beside their chance level, in closed form; no spectrum.

    Under a uniformly random permutation of the entries of b,
    E cos = N ā b̄/(‖a‖‖b‖) and sd = √(Σ(a−ā)²·Σ(b−b̄)²/(N−1))/(‖a‖‖b‖).
    For entries of mean zero that is 0 ± 1/√(N−1). Gains are positive, so theirs is near 1.

    Parameters
    ----------
    a, b : equal shapes, neither all zero.

    Raises
    ------
    ValueError for unequal shapes or an all-zero tensor.

    >>> one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> round(likeness(Side(one), Side(one.flip(0))).resid_norm ** 2, 12)
    2.0
    """
    if a.stored.shape != b.stored.shape or not a.norm or not b.norm:
        shapes = f"{list(a.stored.shape)} and {list(b.stored.shape)}"
        raise ValueError(f"two non-zero tensors of one shape are needed, got {shapes}")
    size, constant = a.size, a.is_constant or b.is_constant
    product, centred, distance_sq = _sums(a, b)
    cos = product / (a.norm * b.norm)
    null_cos = size * a.mean * b.mean / (a.norm * b.norm)
    null_sd = 0.0 if constant else a.spread * b.spread / (a.norm * b.norm) / math.sqrt(size - 1)
    # ‖b̂ − cos·â‖² is also ‖b̂ ∓ â‖²·(1 − ‖b̂ ∓ â‖²/4), and with the nearer sign nothing cancels.
    near = distance_sq if cos > -0.5 else _total(lambda x, y: float((y / b.norm + x / a.norm).square().sum()), a, b)
    return FamilyPair(
        cos=cos,
        resid_norm=math.sqrt(distance_sq),  # √(2−2cos) cancels near cos = 1
        scalar_resid=math.sqrt(max(0.0, near * (1 - near / 4))),  # and so does √(1−cos²)
        scalar_explained=cos**2,
        null_cos=null_cos,
        null_sd=null_sd,
        null_resid=math.sqrt(max(0.0, 2 - 2 * null_cos)),
        pearson=None if constant else centred / (a.spread * b.spread),
        z=None if constant else (cos - null_cos) / null_sd,
    )


def _sums(a: Side, b: Side) -> tuple[float, float, float]:
    """⟨a,b⟩, ⟨a−ā,b−b̄⟩ and ‖b̂−â‖²; the first and the last in one pass."""
    scale = a.norm / b.norm  # exactly 1 for equal layers, which are then exactly zero apart
    work = torch.empty(min(blockwise.BLOCK, a.size), dtype=torch.float64)

    def terms(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
        on_cpu = x.device.type == "cpu"
        difference = torch.sub(x, y, alpha=scale, out=work[: len(x)]) if on_cpu else x - scale * y
        return blockwise.dot(x, y), blockwise.dot(difference, difference)

    product, distance_sq = blockwise.sums(terms, a.stored, b.stored)
    centred = product - a.size * a.mean * b.mean
    if any(x.has_mean(x.spread**2, x.norm**2) for x in (a, b)):
        centred = _total(lambda x, y: float((x - a.mean) @ (y - b.mean)), a, b)
    return product, centred, distance_sq / a.norm**2


def _total(term: Callable[[torch.Tensor, torch.Tensor], float], a: Side, b: Side) -> float:
    return blockwise.sums(lambda x, y: (term(x, y),), a.stored, b.stored)[0]


def rounding(a: Side, b: Side) -> float:
    """Largest residual of two tensors that are equal up to a factor, each rounded to the type that it came from.

    Every entry is right to half that type's eps, relative, and so is the tensor in its norm; what is left after the
    best scalar multiple is at most the sum of both. The type is the narrowest that holds every entry, whatever the
    tensor is stored in.
    """
    return IDENTICAL + sum(_eps(side.stored) / 2 for side in (a, b))


def _eps(stored: torch.Tensor) -> float:
    narrow = (dtype for dtype in (torch.bfloat16, torch.float16, torch.float32) if _holds(dtype, stored))
    return torch.finfo(next(narrow, stored.dtype)).eps


def _holds(dtype: torch.dtype, stored: torch.Tensor) -> bool:
    return torch.equal(stored.to(dtype).to(stored.dtype), stored)


def with_rank(
    pair: FamilyPair,
    a: Side,
    b: Side,
    chance: "Chance",
    *,
    vectors: torch.Generator | None = None,
    shuffled: bool = True,
) -> FamilyPair:
    """The pair with the spectrum of its residual and what chance makes of it.

    Parameters
    ----------
    a, b : two matrices of more than one entry.
    chance : draws for this shape.
    vectors : where it is given, spectra of large matrices are estimated from vectors drawn with it, if that is faster.
    shuffled : whether the spectrum of the shuffled residual is wanted.

    Returns
    -------
    The pair as it was where the matrices are identical up to a factor and the rounding of their storage: what is left
    of such layers is noise, whose spectrum is as full as can be and says nothing of them.
    """
    if pair.scalar_resid <= COARSEST and pair.scalar_resid <= rounding(a, b):
        return pair
    sampled = vectors is not None and min(b.stored.shape) >= SAMPLED_SIDE
    delta = torch.empty(b.stored.shape, dtype=torch.float32 if sampled else torch.float64, device=b.stored.device)
    blockwise.write(delta, lambda x, y: y / b.norm - x / a.norm, a.stored, b.stored)
    if sampled:
        energy = pair.resid_norm**2
        resid = _sampled(delta, energy, vectors)
        delta = chance.shuffled(delta)  # one such matrix is held at a time; what is drawn next depends on its draws
        permuted = _sampled(delta, energy, vectors)
        del delta
        haar = _sampled_rotated(a, b, vectors)
    else:
        (energy,) = blockwise.sums(lambda d: (blockwise.dot(d, d),), delta)
        resid, haar = _exact(delta, energy), None
        permuted = _exact(chance.shuffled(delta), energy) if shuffled else None
    rank = math.exp(resid.entropy)
    haar_rank = math.exp(haar.entropy) if haar else chance.rotations.effective_rank(a.sigma, b.sigma)
    return replace(
        pair,
        resid_eff_rank=rank,
        resid_spec_entropy=resid.entropy,
        eff_rank_page=math.exp(spectra.page_entropy(*b.stored.shape)) if min(b.stored.shape) >= PAGE_SIDE else None,
        eff_rank_shuffled=math.exp(permuted.entropy) if permuted else None,
        eff_rank_haar=haar_rank,
        eff_rank_ratio=rank / haar_rank,
        resid_eff_rank_error=rank * resid.error,
        eff_rank_ratio_error=rank / haar_rank * math.hypot(resid.error, haar.error if haar else 0.0),
        spectrum_error=resid.energy_error,
    )


@dataclass(frozen=True, slots=True)
class _Entropy:
    entropy: float  # nats
    error: float  # standard error; 0 where exact
    energy_error: float | None  # |Σσ² − ‖Δ‖²|/‖Δ‖²; None where sampled


def _exact(delta: torch.Tensor, energy: float) -> _Entropy:
    sigma_sq = spectra.squared_singular_values(delta.double())
    return _Entropy(float(spectra.energy_entropy(sigma_sq)), 0.0, abs(float(sigma_sq.sum()) - energy) / energy)


def _sampled(delta: torch.Tensor, energy: float, vectors: torch.Generator) -> _Entropy:
    estimate = lanczos.sampled_entropy(lanczos.dense(delta), min(delta.shape), energy, vectors, delta.device)
    return _exact(delta, energy) if estimate is None else _Entropy(estimate.entropy, estimate.error, None)


def _sampled_rotated(a: Side, b: Side, vectors: torch.Generator) -> lanczos.Sampled | None:
    """Spectral entropy of â − P b̂ Qᵀ for random P and Q, whose energy is 2 up to 1/√N; or None"""
    shape, device = a.stored.shape, a.stored.device
    mixings = (lanczos.Mixing.draw(n, vectors, device) for n in sorted(shape))
    operator = lanczos.rotated_difference(*(x.stored.float() / x.norm for x in (a, b)), *mixings)
    return lanczos.sampled_entropy(operator, min(shape), 2.0, vectors, device)


class Chance:
    """What is drawn at random for matrices of one shape. The draws do not depend on them, and serve every pair.

    Where spectra are sampled, the order of a large matrix is kept in half the memory.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        generator: torch.Generator,
        *,
        device: torch.device | str,
        sampled: bool = False,
    ):
        self.generator = generator  # on the CPU
        self.shape, self.device = (rows, columns), torch.device(device)
        half = sampled and min(rows, columns) >= SAMPLED_SIDE and rows * columns < 2**31
        order = torch.randperm(rows * columns, generator=generator, dtype=torch.int32 if half else torch.int64)
        self.order = order.to(self.device)
        self._rotations: Rotations | None = None

    def shuffled(self, delta: torch.Tensor) -> torch.Tensor:
        """Its entries in the drawn order."""
        return delta.flatten().index_select(0, self.order).view(delta.shape)

    @property
    def rotations(self) -> "Rotations":
        if self._rotations is None:
            self._rotations = Rotations.draw(*self.shape, self.generator, device=self.device)
        return self._rotations


@dataclass(frozen=True, slots=True)
class Rotations:
    """Relative rotations between the singular vectors of two unrelated matrices of one shape.

    The spectrum of U_a S_a V_aᵀ − U_b S_b V_bᵀ depends on U_aᵀU_b and V_aᵀV_b alone, so a's
    vectors may lie on the axes: Δ = [S_a 0] − P S_b Qᵀ with P Haar (m×m) and Q a Haar frame (n×m).
    ΔΔᵀ = (P S_b − S_a Q₁)(P S_b − S_a Q₁)ᵀ + S_a (I − Q₁Q₁ᵀ) S_a then needs only Q₁, the first m rows of Q.
    """

    left: torch.Tensor  # P, (draw, mode, mode)
    right: torch.Tensor  # Q₁, (draw, mode, mode)
    rest: torch.Tensor  # I − Q₁Q₁ᵀ, (draw, mode, mode)

    @classmethod
    def draw(
        cls, rows: int, columns: int, generator: torch.Generator, *, device: torch.device | str
    ) -> "Rotations":
        small, large = sorted((rows, columns))
        draws = max(1, HAAR_SIDE // small)
        pairs = [
            (spectra.haar(small, small, generator), spectra.haar(large, small, generator)[:small]) for _ in range(draws)
        ]
        left, right = (torch.stack(side).to(device) for side in zip(*pairs, strict=True))
        return cls(left, right, torch.eye(small, dtype=torch.float64, device=device) - spectra.gram(right))

    def effective_rank(self, sigma_a: torch.Tensor, sigma_b: torch.Tensor) -> float:
        """Mean over draws of the effective rank of [S_a 0] − P S_b Qᵀ; sigma_* (mode,) float64."""
        gram = spectra.gram(self.left * sigma_b - sigma_a[:, None] * self.right)
        gram += sigma_a[:, None] * self.rest * sigma_a
        energy = spectra.eigenvalues(gram)  # (draw, mode)
        return float(spectra.energy_entropy(energy).exp().mean())
