"""Alignment of adjacent layers' Gram matrices, and the number of directions that their sum fills.

For two Grams M and M' of one kind, see `grams`:

    align     ⟨dev M, dev M'⟩/(‖dev M‖·‖dev M'‖) with dev M = M − (tr M/m)·1: a cosine of what is left when both
              are compared with no preference at all. 1 for the same preference, 0 for unrelated ones, negative where
              one prefers what the other avoids. A rotation of the stream leaves it alone.
    channel r Pearson's r of ln diag M and ln diag M', channel by channel: what a reader of norm gains looks at.
              Permutations of the stream leave it alone, rotations do not.
    rank      effective rank of M̂ + M̂', M̂ = M/tr M, that is of both layers' rows together, each layer's at norm 1;
              over the mean of the same for the two spectra with independent Haar-random eigenvectors.

m is the hidden size, less one where a LayerNorm hides a constant over channels from both (dev, and the random
eigenvectors, then live in the rest). Grams nearer to one another than the rounding of bfloat16 weights could tell
are called identical: they have no rank ratio, since their sum shows one layer's spectrum and not two layers' relation.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analyses.null_residual.grams import (
    GRAMS,
    MADE_OF,
    branch_scales,
    branches,
    is_centred,
    layer_grams,
    product_type,
)
from analyses.null_residual.pairs import HAAR_SIDE, SAMPLED_SIDE
from analyses.numerics import lanczos, spectra
from analyses.weights.checkpoint import Checkpoint

# ‖M̂ − M̂'‖/‖M̂‖ of layers equal up to a factor and the rounding of their storage: entries of bfloat16 are right to
# 2^-8, rows A and A' to 2^-7 together, and ‖AᵀA − A'ᵀA'‖ ≤ 2‖A‖₂‖A − A'‖ makes 2^-6; twice that for a product of two.
IDENTICAL = 2.0**-5
ISOTROPIC = 64  # × eps of a Gram's type: ‖dev M‖/‖M‖ below this is rounding
STREAM = 17  # apart from the seeds of families


@dataclass(frozen=True, slots=True, kw_only=True)
class GramPair:
    """One kind of Gram in two adjacent layers; None has a reason in the record."""

    align: float | None = None  # in [−1, 1]; None where one of the two is zero or prefers no direction
    channel_r: float | None = None  # in [−1, 1]; None where a channel is zero or all are alike
    distance: float | None = None  # ‖M̂ − M̂'‖/√(‖M̂‖‖M̂'‖); None where one is zero
    eff_rank: float | None = None  # of M̂ + M̂', in [1, m]; None where they are identical
    eff_rank_haar: float | None = None  # the same for the two spectra with Haar-random eigenvectors
    rank_ratio: float | None = None  # eff_rank / eff_rank_haar
    rank_ratio_error: float | None = None  # standard error where sampled; 0 where the spectra are exact

    @property
    def identical(self) -> bool:
        """Whether the two are equal up to a factor and rounding."""
        return self.distance is not None and self.distance <= IDENTICAL


@dataclass(frozen=True, slots=True, kw_only=True)
class GramTracks:
    """What a checkpoint's branches read and write, layer by layer."""

    pairs: dict[str, list[GramPair]]  # name in GRAMS → (pair,)
    scales: dict[str, list[float]]  # name in SCALES → (layer,)
    side: int  # m, the dimensions in which every Gram lives


class Side:
    """One layer's Gram at trace 1, with what both of its pairs ask of it."""

    def __init__(self, gram: torch.Tensor, *, centred: bool):
        self.centred, self.dim = centred, len(gram) - centred
        self.trace = float(gram.trace())
        self.gram = gram / self.trace if self.trace else gram  # (hidden, hidden), in the type of its products
        self.norm = _norm(self.gram)
        self._spectrum: torch.Tensor | None = None

    def deviation(self) -> torch.Tensor | None:
        """dev M at norm 1, made anew; None where it is rounding."""
        if not self.trace or not self.dim:
            return None
        left = self.gram.clone()
        left.diagonal().sub_(1 / self.dim)
        if self.centred:  # the isotropic Gram is 1 − 11ᵀ/hidden there, over hidden − 1
            left += 1 / (self.dim * len(left))
        norm = _norm(left)
        return left.div_(norm) if norm > self.rounding * self.norm else None

    @property
    def rounding(self) -> float:
        """Relative to the whole, what is left of a Gram may not be told from nothing below this."""
        return ISOTROPIC * torch.finfo(self.gram.dtype).eps

    @property
    def spectrum(self) -> torch.Tensor:
        """(mode,) eigenvalues in the m dimensions, descending; computed once."""
        if self._spectrum is None:
            self._spectrum = spectra.eigenvalues(self.gram.double()).flip(-1)[: self.dim].clamp_min(0)
        return self._spectrum


class Rotations:
    """Haar-random rotations of one layer's eigenvectors against the other's; drawn once a dimension, for all pairs."""

    def __init__(self, seed: int, *, device: str):
        self.seed, self.device = seed, device
        self._drawn: dict[int, torch.Tensor] = {}

    def __getitem__(self, dim: int) -> torch.Tensor:
        """(draw, dim, dim): one from side HAAR_SIDE on, more below."""
        if dim not in self._drawn:
            state = np.random.SeedSequence([self.seed, STREAM, dim]).generate_state(1)[0]
            generator = torch.Generator().manual_seed(int(state))
            draws = [spectra.haar(dim, dim, generator) for _ in range(max(1, HAAR_SIDE // dim))]
            self._drawn[dim] = torch.stack(draws).to(self.device)
        return self._drawn[dim]


def compare(a: Side, b: Side, rotations: Rotations | None, *, vectors: torch.Generator | None = None) -> GramPair:
    """Alignment, channel form and rank ratio of two layers' Grams.

    Parameters
    ----------
    a, b : of one kind, adjacent layers.
    rotations : for the chance level of the rank; None to leave ranks out.
    vectors : where it is given, ranks of large Grams are estimated from vectors drawn with it, if that is faster.
    """
    if not a.trace or not b.trace:
        return GramPair()
    one, other = a.deviation(), b.deviation()
    inner = None if one is None or other is None else float(one.mul_(other).sum(dtype=torch.float64))
    align = None if inner is None else max(-1.0, min(1.0, inner))
    del one, other
    distance = _norm(a.gram - b.gram) / math.sqrt(a.norm * b.norm)
    pair = GramPair(align=align, channel_r=_channel_r(a, b), distance=distance)
    if rotations is None or pair.identical or min(a.dim, b.dim) < 2:
        return pair
    (entropy, error), (haar, haar_error) = _entropies(a, b, rotations, vectors)
    return GramPair(
        align=pair.align,
        channel_r=pair.channel_r,
        distance=distance,
        eff_rank=math.exp(entropy),
        eff_rank_haar=math.exp(haar),
        rank_ratio=math.exp(entropy - haar),
        rank_ratio_error=math.exp(entropy - haar) * math.hypot(error, haar_error),
    )


def _norm(matrix: torch.Tensor) -> float:
    """Frobenius, summed in float64 whatever the type of the entries."""
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64))


def _channel_r(a: Side, b: Side) -> float | None:
    """Pearson's r of the logarithms of the diagonals; None where one is not positive or does not vary."""
    if min(float(x.gram.diagonal().min()) for x in (a, b)) <= 0:
        return None
    logs = [np.log(x.gram.diagonal().double().cpu().numpy()) for x in (a, b)]
    if any(float(np.ptp(log)) <= x.rounding * float(np.abs(log).max()) for x, log in zip((a, b), logs, strict=True)):
        return None
    return float(np.corrcoef(*logs)[0, 1])


Entropy = tuple[float, float]  # nats, and its standard error


def _entropies(a: Side, b: Side, rotations: Rotations, vectors: torch.Generator | None) -> tuple[Entropy, Entropy]:
    """Spectral entropy of M̂ + M̂', whose trace is 2, and of the same with random eigenvectors."""
    if vectors is not None and a.dim >= SAMPLED_SIDE:
        device, side = a.gram.device, len(a.gram)  # a rotation of the hidden constant, too, is no matter at this side
        low, high = a.gram.float(), b.gram.float()
        mixing = lanczos.Mixing.draw(side, vectors, device)
        found = [
            lanczos.sampled_entropy(operator, side, 2.0, vectors, device)
            for operator in (lanczos.symmetric(low + high), lanczos.rotated_sum(low, high, mixing))
        ]
        if None not in found:
            return tuple((sample.entropy, sample.error) for sample in found)
    own = spectra.energy_entropy(spectra.eigenvalues((a.gram + b.gram).double()))
    turn = rotations[a.dim]  # (draw, mode, mode)
    turned = spectra.gram(turn * b.spectrum.sqrt())
    turned.diagonal(dim1=-2, dim2=-1).add_(a.spectrum)
    ranks = spectra.energy_entropy(spectra.eigenvalues(turned)).exp()  # (draw,)
    return (float(own), 0.0), (math.log(float(ranks.mean())), 0.0)


def follow_grams(
    checkpoint: Checkpoint,
    *,
    seed: int,
    device: str,
    spectra: str = "exact",
    kinds: Collection[str] = GRAMS,
    each: Callable[[Iterable], Iterable] = iter,
) -> GramTracks:
    """Compare each layer's Grams with the next layer's, one branch after the other, two layers at a time.

    Parameters
    ----------
    seed : of the random eigenvectors, and of what samples a spectrum.
    spectra : of the sums: exact, sampled or none.
    kinds : of Grams that are wanted; all scales are measured.
    each : passes a branch's layers through, to count them.
    """
    rotations = None if spectra == "none" else Rotations(seed, device=device)
    dtype = product_type(checkpoint, exact=spectra == "exact")
    pairs: dict[str, list[GramPair]] = {}
    scales: dict[str, list[float]] = {}
    for number, (branch, names) in enumerate(branches(checkpoint).items()):
        before: dict[str, Side] = {}
        wanted = [name for name in names if name in kinds]
        having = checkpoint.layers_with(*(family for name in names for family in MADE_OF[name]))
        for layer in each(having):
            made = layer_grams(checkpoint, branch, layer, device=device, dtype=dtype, kinds=kinds)
            for scale, value in made.scales.items():
                scales.setdefault(scale, []).append(value)
            after = {name: Side(made.grams.pop(name), centred=is_centred(checkpoint, name)) for name in wanted}
            del made
            vectors = _vectors(seed, number, checkpoint.number(layer)) if spectra == "sampled" else None
            for name in before:
                pairs.setdefault(name, []).append(compare(before[name], after[name], rotations, vectors=vectors))
            before = after
        if len(having) < checkpoint.shape.layers:
            _spread(pairs, scales, wanted, branch_scales(names), having, checkpoint.shape.layers)
    side = checkpoint.shape.hidden - any(is_centred(checkpoint, name) for name in GRAMS)
    return GramTracks(pairs=pairs, scales=scales, side=side)


def _spread(
    pairs: dict[str, list[GramPair]],
    scales: dict[str, list[float | None]],
    names: Iterable[str],
    sizes: Iterable[str],
    having: Sequence[int],
    depth: int,
) -> None:
    """Lists over the layers that have a branch, made lists over all layers: without a value elsewhere."""
    for name in names:
        at = dict(zip(having, pairs.get(name, []), strict=False))
        pairs[name] = [at.get(layer, GramPair()) for layer in range(depth - 1)]
    for name in sizes:
        if name in scales:
            found = dict(zip(having, scales[name], strict=True))
            scales[name] = [found.get(layer) for layer in range(depth)]


def _vectors(*seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence((*seed, STREAM)).generate_state(1)[0]))
