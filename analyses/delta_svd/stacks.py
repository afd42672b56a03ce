"""Effective ranks of the stacked directions of a phase's layers, beside random ones and another phase's.

The leading directions of N layers' centred writes, one under the other, have an effective rank between that of one
layer and N times it. Random orthonormal frames of the same number have the most that so many dimensions allow: chance.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from analyses.numerics.spectra import energy_entropy

SHARED, OWN = "C", "E"  # the phases of the hypothesis
LEAST_LAYERS = 2  # in a phase, for anything to be shared or to differ
FRAMES = 8  # draws of random frames; the effective rank of a stack averages over its many modes itself
SEGMENTATIONS = 2000  # a p-value of 0.05 then has a Monte Carlo error of 0.005; the least survives 100 other claims
PLANTED = 0.1  # of a rank ratio, or of |cos|, by which a phase shares more, planted where a test's power is asked
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A statistic among those of other runs or segmentations."""

    value: float | None
    p: float | None  # share of the others that are at least as large, this one counted
    others: int
    power: float | None = None  # share of the runs in which a planted effect is seen


def among(value: float | None, others: Sequence[float | None]) -> Test:
    """p of a value among others, +1 rule; what has no value is left out."""
    known = [x for x in others if x is not None]
    if value is None or not known:
        return Test(value=value, p=None, others=len(known))
    above = sum(x >= value - 1e-12 for x in known)  # a tie is no separation
    return Test(value=value, p=(1 + above) / (1 + len(known)), others=len(known))


def power(values: Sequence[float | None], felt: np.ndarray, planted: float) -> float | None:
    """Share of runs that stand out at LEVEL where an effect is planted in them, one at a time.

    Parameters
    ----------
    values : the statistic of every run; what has no value is left out.
    felt : (run, run) how much of an effect planted in the first the second shows too, 1 of its own.
    planted : what the statistic gains.
    """
    known = [i for i, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return None
    shown = np.array([values[i] for i in known]) + planted * felt[np.ix_(known, known)]  # (planted in, run)
    p = (shown >= np.diagonal(shown)[:, None] - 1e-12).sum(1) / len(known)
    return float((p <= LEVEL).mean())


def common(runs: Sequence[range], others: Sequence[range]) -> np.ndarray:
    """(run, other) share of the other's layers that the run has."""
    (start, stop), (first, end) = (np.array([(run.start, run.stop) for run in some]).T for some in (runs, others))
    shared = np.minimum(stop[:, None], end) - np.maximum(start[:, None], first)
    return np.maximum(shared, 0) / (end - first)


class Stacks:
    """Effective ranks of stacked directions of runs of layers, each computed once.

    directions : (layer, mode, hidden) orthonormal rows a layer, zero where there are fewer.
    dimensions : that writes can have, hidden or one less.
    """

    def __init__(self, directions: np.ndarray, *, dimensions: int, seed: int):
        self.modes = directions.shape[1]
        self.dimensions, self.seed = dimensions, seed
        flat = torch.from_numpy(directions.reshape(-1, directions.shape[-1])).double()
        self.products = flat @ flat.T  # (layer·mode, layer·mode)
        self.known: dict[tuple[range, int], float] = {}
        self.chances: dict[int, float] = {}

    def rank(self, run: Sequence[int], modes: int | None = None) -> float:
        """e^S of the stacked directions, of `modes` a layer."""
        modes = self.modes if modes is None else modes
        key = (tuple(run), modes)
        if key not in self.known:
            rows = [layer * self.modes + mode for layer in run for mode in range(modes)]
            self.known[key] = float(energy_entropy(torch.linalg.eigvalsh(self.products[rows][:, rows])).exp())
        return self.known[key]

    def chance(self, layers: int) -> float:
        """Mean effective rank of as many random orthonormal frames."""
        if layers not in self.chances:
            generator = torch.Generator().manual_seed(self.seed)
            drawn = torch.randn(FRAMES, layers, self.dimensions, self.modes, generator=generator, dtype=torch.float64)
            frames = torch.linalg.qr(drawn).Q.mT.flatten(1, 2)  # (draw, layer·mode, dimension)
            side = frames @ frames.mT if frames.shape[1] <= self.dimensions else frames.mT @ frames
            self.chances[layers] = float(energy_entropy(torch.linalg.eigvalsh(side)).exp().mean())
        return self.chances[layers]

    def ratio(self, run: Sequence[int]) -> float:
        """Effective rank of a run's stacked directions over that of random frames."""
        return self.rank(run) / self.chance(len(run))

    def share(self, run: Sequence[int]) -> float:
        """Effective rank of a run's first directions over their number."""
        return self.rank(run, 1) / len(run)


def jackknife(statistic: Callable[[Sequence[int]], float], run: range) -> float | None:
    """Standard error of a statistic of a run, each layer left out once; None for fewer than three layers."""
    if len(run) < 3:
        return None
    values = np.array([statistic([layer for layer in run if layer != out]) for out in run])
    return math.sqrt((len(run) - 1) / len(run) * float(np.square(values - values.mean()).sum()))


def equal_distance(similarity: np.ndarray, one: range, other: range) -> float:
    """Mean |cos| inside one run less that inside another, at equal distance in depth.

    similarity : (layer, layer). Each distance weighs n·n'/(n + n'), the inverse variance of such a difference.
    Both runs have LEAST_LAYERS.
    """
    total = weight = 0.0
    for distance in range(1, min(len(one), len(other))):
        means, counts = zip(*(_diagonal(similarity, run, distance) for run in (one, other)), strict=True)
        w = counts[0] * counts[1] / sum(counts)
        total, weight = total + w * (means[0] - means[1]), weight + w
    return total / weight


def _diagonal(similarity: np.ndarray, run: range, distance: int) -> tuple[float, int]:
    values = np.diagonal(similarity[run.start : run.stop, run.start : run.stop], distance)
    return float(values.mean()), len(values)


def placements(layers: int, one: range, other: range, seed: int) -> list[tuple[range, range]]:
    """Two disjoint runs as long as these, elsewhere: all, or SEGMENTATIONS of them drawn."""
    found = [
        (range(a, a + len(one)), range(b, b + len(other)))
        for a in range(layers - len(one) + 1)
        for b in range(layers - len(other) + 1)
        if (a + len(one) <= b or b + len(other) <= a) and (a, b) != (one.start, other.start)
    ]
    if len(found) <= SEGMENTATIONS:
        return found
    drawn = np.random.default_rng(seed).choice(len(found), SEGMENTATIONS, replace=False)
    return [found[i] for i in sorted(drawn.tolist())]


def differences(
    stacks: Stacks, similarity: np.ndarray, shared: range, own: range, *, seed: int, compared: bool = True
) -> tuple[Test, Test]:
    """How much more one phase shares than another, by effective ranks and by |cos|, among segmentations.

    The segmentations cut out runs of the two phases' lengths anywhere else: of other lengths, differences would have
    other variances. Both phases have LEAST_LAYERS. Without p where they are not to be `compared`.
    """
    runs = [(shared, own), *(placements(len(similarity), shared, own, seed) if compared else ())]
    ranks = [stacks.ratio(other) - stacks.ratio(one) for one, other in runs]
    cosines = [equal_distance(similarity, one, other) for one, other in runs]
    ones, others = zip(*runs, strict=True)
    felt = common(ones, ones) - common(ones, others)
    return tuple(replace(among(v[0], v[1:]), power=power(v, felt, PLANTED)) for v in (ranks, cosines))
