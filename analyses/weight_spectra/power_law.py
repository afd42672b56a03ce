"""A power law fitted to the tail of a sample by maximum likelihood.

x ≥ x_min has the density (α − 1)/x_min·(x/x_min)^−α, so that α = 1 + n/Σ ln(x/x_min) over the n values of the tail.
x_min is the value at which the tail is nearest to its law, in the largest distance between distribution functions
(Clauset, Shalizi & Newman 2009, SIAM Review 51, 661, equations 3.1 and 3.9), as the package `powerlaw` (Alstott,
Bullmore & Plenz 2014) has it.

How well the law describes the sample is told by samples made of it: below x_min values drawn from the sample's own,
above it from the law; each is fitted anew, x_min too. p is the share of them that lie as far from their law. The same
fits give α's interval.

Samples of one length are fitted at once, as rows of one array. Axes: row, start (of a tail), value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 49  # samples made of the law: p is right to 0.07
CANDIDATES = 64  # values of x_min tried on each of them, evenly over the order
LEAST = 16  # values: of fewer no tail is fitted
LEVEL = 0.90
PROBES = 8  # values of a tail that bound its distance
ROUNDING = 1e-12  # of a distance
BLOCK = 1 << 15  # values of tails looked at at a time: they stay in the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """The law of one sample's tail."""

    alpha: float  # exponent of the density, above 1
    x_min: float  # where the tail begins
    distance: float  # largest distance of the distribution functions, 0 to 1
    tail: int  # values in it
    error: float  # (α − 1)/√n, the standard error at given x_min


def fit(sample: np.ndarray) -> PowerLaw | None:
    """The power law of a sample of positive values; None for fewer than LEAST, or where none differ."""
    return fits([sample])[0]


def fits(samples: Sequence[np.ndarray], *, candidates: int | None = None) -> list[PowerLaw | None]:
    """`fit` of each sample.

    Parameters
    ----------
    candidates : values of x_min to try, evenly over the order; None for all.
    """
    known = [x[x > 0] for x in (np.asarray(sample, float) for sample in samples)]
    found: list[PowerLaw | None] = [None] * len(known)
    for length in {len(x) for x in known if len(x) >= LEAST}:
        rows = [row for row, x in enumerate(known) if len(x) == length]
        x = np.sort(np.stack([known[row] for row in rows]))
        differ = np.flatnonzero(x[:, 0] < x[:, -1])
        for row, law in zip(differ, _laws(x[differ], candidates) if len(differ) else (), strict=True):
            found[rows[row]] = law
    return found


def _laws(x: np.ndarray, candidates: int | None) -> list[PowerLaw]:
    """Of (row, value) ascending positive values, of which some differ in each row."""
    logs, starts = np.log(x), _starts(x, candidates)
    sums = logs[:, ::-1].cumsum(1)[:, ::-1]
    count = x.shape[1] - starts
    alpha = 1 + count / (_at(sums, starts) - count * _at(logs, starts))
    distances = _distances(logs, starts, alpha)
    best = distances.argmin(1)[:, None]
    alpha, distance, tail = (_at(table, best)[:, 0] for table in (alpha, distances, count))
    x_min, error = _at(x, _at(starts, best))[:, 0], (alpha - 1) / np.sqrt(tail)
    columns = (column.tolist() for column in (alpha, x_min, distance, tail, error))
    return [PowerLaw(alpha=a, x_min=x, distance=d, tail=n, error=e) for a, x, d, n, e in zip(*columns, strict=True)]


def _at(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.take_along_axis(table, index, 1)


def _starts(x: np.ndarray, candidates: int | None) -> np.ndarray:
    """(row, start) where values begin that no earlier one equals, but the last value: of it there is no tail.

    A row with fewer of them than another repeats its last.
    """
    begins = x < x[:, -1:]
    begins[:, 1:] &= x[:, 1:] > x[:, :-1]
    last = begins.sum(1) - 1
    order = np.argsort(~begins, axis=1, kind="stable")
    column = np.minimum(np.arange(last.max() + 1), last[:, None])
    if candidates is None or len(column[0]) <= candidates:
        return _at(order, column)
    spread = np.linspace(0, last, candidates, axis=1).round().astype(int)
    return _at(order, np.where((last >= candidates)[:, None], spread, column[:, :candidates]))


def _distances(logs: np.ndarray, starts: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(row, start) largest |F(x) − share of the tail below x| over the tail's values; ∞ where another start is nearer.

    A few values of each tail bound its distance from below, and nearly all are then known to be farther than one whose
    distance is known.
    """
    rows, bound = np.arange(len(logs)), np.empty(starts.shape)
    step = max(1, BLOCK // (PROBES * starts.shape[1]))
    for block in (slice(first, first + step) for first in range(0, len(rows), step)):
        start = starts[block, :, None]
        at = start + ((logs.shape[1] - 1 - start) * np.arange(1, PROBES + 1) / PROBES).astype(int)
        bound[block] = _farthest(logs, rows[block, None, None], start, alpha[block, :, None], at)
    likely = bound.argmin(1)
    known = _whole_tails(logs, rows, starts[rows, likely], alpha[rows, likely])
    row, column = np.nonzero(bound <= known[:, None] + ROUNDING)
    found = np.full(starts.shape, np.inf)
    found[row, column] = _whole_tails(logs, row, starts[row, column], alpha[row, column])
    return found


def _whole_tails(logs: np.ndarray, row: np.ndarray, start: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(tail) `_farthest` over all values of the tails that begin at `start` in these rows."""
    found, order = np.empty(len(row)), np.argsort(start, kind="stable")
    step = max(1, BLOCK // logs.shape[1])
    for tails in (order[first : first + step, None] for first in range(0, len(order), step)):
        at = np.arange(start[tails[0, 0]], logs.shape[1])  # none of these tails begins before the first
        found[tails[:, 0]] = _farthest(logs, row[tails], start[tails], alpha[tails], at)
    return found


def _farthest(logs: np.ndarray, row: np.ndarray, start: np.ndarray, alpha: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Largest |F(x) − share of the tail below x| over the values `at`, the last axis; 0 before the tail begins."""
    law = np.maximum(logs[row, at] - logs[row, start], 0)
    law *= 1 - alpha
    np.expm1(law, out=law)  # less the law's share below each value
    law += np.maximum(at - start, 0) / (logs.shape[1] - start)
    return np.abs(law, out=law).max(-1)


def against_itself(
    sample: np.ndarray, law: PowerLaw, *, seed: int | Sequence[int]
) -> tuple[float, tuple[float, float]]:
    """p of the law, and α's interval from samples made of it."""
    x = np.asarray(sample, float)
    x = x[x > 0]
    bulk = x[x < law.x_min]
    rng = np.random.default_rng(seed)
    made, tails = np.empty((DRAWS, len(x))), np.full(DRAWS, len(x))
    for draw, values in enumerate(made):
        if len(bulk):
            tails[draw] = rng.binomial(len(x), law.tail / len(x))
        tail = tails[draw]
        values[:tail] = rng.random(tail)
        if len(bulk):
            values[tail:] = bulk[rng.integers(len(bulk), size=len(x) - tail)]
    of_law = np.arange(len(x)) < tails[:, None]
    made[of_law] = law.x_min * (1 - made[of_law]) ** (-1 / (law.alpha - 1))
    found = [one for one in fits(made, candidates=CANDIDATES) if one]
    if not found:
        return 1.0, (law.alpha, law.alpha)
    low, middle, high = np.quantile([one.alpha for one in found], [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    interval = (law.alpha - max(0.0, middle - low), law.alpha + max(0.0, high - middle))
    farther = sum(one.distance >= law.distance for one in found)
    return (1 + farther) / (1 + len(found)), (float(interval[0]), float(interval[1]))
