"""Intervals for statistics of tracks over depth, which know that neighbouring layers are alike.

Every interval is 90 % unless a level is given, so that each end is a one-sided 95 % bound, and contains its estimate.
`docs/calibration.md` holds their measured coverage. Below `LEAST` units there is none.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import numpy as np
from scipy import special, stats

from analyses.numerics import autocorrelation

LEVEL = 0.90  # two-sided; each end alone is a 95 % bound
RESAMPLES = 2000  # percentile ends then have a Monte Carlo error of about 0.5 percentage points
RANK_CAUTION = -0.25  # beside `autocorrelation.caution` of a mean: the interval of ranks is wider by itself
BLOCK = 1 << 16  # values whose order over the units drawn is followed at a time: they stay in the cache
LEAST = 4  # units: fewer say nothing of their spread about a parabola
LEAST_TREND = 5  # layers: the same about a line over depth

Interval = tuple[float, float]

_LEFT_OUT = ContextVar("intervals left out", default=False)


@contextmanager
def left_out() -> Iterator[None]:
    """Inside, nothing is resampled for an interval, and there is none: for who compares values alone."""
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def are_left_out() -> bool:
    return _LEFT_OUT.get()


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    n: int,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    track: np.ndarray | None = None,
    exchangeable: bool = False,
    level: float = LEVEL,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval | None:
    """Interval of a statistic of n units in their order over depth (layers or pairs of layers).

    Units are resampled one by one, and each end's distance from the median of the resampled values is laid off from
    the estimate, times a factor for the units' persistence φ: the half-width of Student's interval of a mean under
    noise of correlation φ^|i−j| about a parabola over depth, over that of this bootstrap. φ is that of the influence
    of each unit on the statistic, the covariance of how often it was drawn with the resampled values (the
    infinitesimal jackknife), about its own parabola, or that of the ranks of `track`.

    Parameters
    ----------
    statistic : takes (resample, n) integer indices of the units drawn, returns (resample,) values.
    n : number of units.
    track : (unit,) the values that a mean or median is taken of, or each unit's own where it has several.
    exchangeable : the units have no order, as heads or prompts have none; φ is then 0.
    level : two-sided.
    within : the statistic's range; the interval does not leave it.

    Returns
    -------
    (low, high), or None for fewer than `LEAST` units (two if exchangeable), when a resample has no finite value, or
    where intervals are `left_out`.
    """
    return bootstraps(
        lambda drawn: np.asarray(statistic(drawn))[:, None],
        n,
        seed=seed,
        resamples=resamples,
        track=track,
        exchangeable=exchangeable,
        levels=(level,),
        within=within,
    )[0]


def bootstraps(
    statistic: Callable[[np.ndarray], np.ndarray],
    n: int,
    *,
    seed: int,
    levels: Sequence[float],
    resamples: int = RESAMPLES,
    track: np.ndarray | None = None,
    exchangeable: bool = False,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> list[Interval | None]:
    """`bootstrap` of several statistics of the same resampled units, each at its level.

    Parameters
    ----------
    statistic : returns (resample, statistic) values, or (resample, 1) of one that has several levels.
    levels : one a statistic.
    """
    if n < (2 if exchangeable else LEAST) or are_left_out():
        return [None] * len(levels)
    drawn, counts = _drawn(n, resamples, seed)
    values = np.asarray(statistic(drawn), dtype=float)
    estimates = np.asarray(statistic(np.arange(n)[None]), dtype=float)[0]

    def interval(of: np.ndarray, estimate: float, level: float) -> Interval | None:
        if not (np.isfinite(of).all() and math.isfinite(estimate)):
            return None
        factor = _exchangeable(n, level) if exchangeable else _persistent(counts, of, track, level)
        low, middle, high = np.quantile(of, [(1 - level) / 2, 0.5, (1 + level) / 2])
        below, above = estimate - factor * (middle - low), estimate + factor * (high - middle)
        return min(estimate, max(float(below), within[0])), max(estimate, min(float(above), within[1]))

    columns = zip(np.broadcast_to(values.T, (len(levels), len(values))), levels, strict=True)
    shared = np.broadcast_to(estimates, len(levels)).tolist()
    return [interval(of, estimate, level) for (of, level), estimate in zip(columns, shared, strict=True)]


@lru_cache(maxsize=4)
def _drawn(n: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(resample, n) units drawn, and how often each of them was; the same for all statistics of as many units."""
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    counts = times_drawn(drawn)
    drawn.flags.writeable = counts.flags.writeable = False  # shared by all who ask
    return drawn, counts


def times_drawn(drawn: np.ndarray) -> np.ndarray:
    """(resample, unit) how often each of n units is among the (resample, n) drawn, float64.

    Times (unit, …) summands it gives the sums over what was drawn.
    """
    resamples, n = drawn.shape
    cells = (drawn + n * np.arange(resamples)[:, None]).ravel()
    return np.bincount(cells, minlength=resamples * n).reshape(resamples, n).astype(float)


def medians(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(resample,) median of all values of the units drawn; gaps (NaN) count for nothing, NaN where there are only gaps.

    All values are put in order once; where the half of what was drawn is reached, by how often each was, is the median.

    Parameters
    ----------
    values : (unit,) or (unit, value).
    drawn : (resample, n) indices of units.

    >>> medians(np.array([4.0, 1.0, 2.0]), np.array([[0, 1, 2], [0, 0, 1], [1, 2, 2]])).tolist()
    [2.0, 4.0, 2.0]
    """
    flat, counts = values.ravel(), times_drawn(drawn)
    order = np.argsort(flat)[: (~np.isnan(flat)).sum()]  # gaps last
    if not len(order):
        return np.full(len(drawn), np.nan)
    ordered, unit = flat[order], order // (flat.size // len(values))
    found = np.empty(len(drawn))
    step = max(1, BLOCK // len(order))
    for start in range(0, len(drawn), step):
        rows = slice(start, start + step)
        reached = counts[rows, unit].cumsum(1)
        total = reached[:, -1:]
        low, high = ((reached <= at).sum(1) for at in ((total - 1) // 2, total // 2))
        middle = (ordered[np.minimum(low, len(order) - 1)] + ordered[np.minimum(high, len(order) - 1)]) / 2
        found[rows] = np.where(total[:, 0] > 0, middle, np.nan)
    return found


def _exchangeable(n: int, level: float) -> float:
    """Student's half-width of a mean over this bootstrap's, which is z·√RSS/n."""
    return float(n * special.stdtrit(n - 1, (1 + level) / 2) / np.sqrt(n * (n - 1)) / special.ndtri((1 + level) / 2))


def _persistent(counts: np.ndarray, values: np.ndarray, track: np.ndarray | None, level: float) -> float:
    """The same under noise of persistence φ about a parabola over depth, from the units' influence on the
    statistic.

    The parabola counts in the bootstrap's width and not in Student's: layers are not drawn at random from it.
    """
    n = counts.shape[1]
    off = autocorrelation.precision(n, trend=False).residual
    own = _influence(counts, values)
    total = float(np.linalg.norm(own))
    if total == 0:
        return 1.0
    residual = own @ off
    if track is None:  # Monte Carlo noise adds n/resamples of the influence's variance to the lag-one products
        raw = autocorrelation.lag_one(residual) / max(1 - n / len(values), 0.5)
    else:  # of a median, it is nearly a sign, which says too little of persistence; one far value shall not decide
        raw = autocorrelation.lag_one(stats.rankdata(track) @ off)
    z = float(special.ndtri((1 + level) / 2))
    # The further out an end, the more of its misses are tracks whose φ was taken for less than it is.
    raised = autocorrelation.caution(n, trend=False) * z / float(special.ndtri((1 + LEVEL) / 2))
    phi = float(autocorrelation.persistence(raw, n, trend=False, raised=raised))
    reach = float(autocorrelation.reach(phi, n, trend=False, level=level))
    return n * reach * float(np.linalg.norm(residual)) / total / z


def _influence(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(unit) up to a factor: the covariance of how often each was drawn with the resampled values."""
    influence = counts.T @ (values - values.mean())
    return influence - influence.mean()


def spearman(x: np.ndarray, y: np.ndarray, *, level: float = LEVEL) -> tuple[float | None, Interval | None]:
    """Spearman's ρ of a track y with depth x (strictly rising), and its interval.

    Fisher's z with the standard error √((1 + ρ²/2)/(n − 1)), exact for unrelated ranks and Bonett and Wright's (2000)
    form otherwise, times what the persistence of the ranks about their own line over depth adds to that of a slope
    (t for z included, hence n − 1 and not their n − 3).

    Returns (None, None) for a constant input or fewer than 3 points, no interval below `LEAST_TREND` points.
    """
    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    depth, ranks = stats.rankdata(x), stats.rankdata(y)
    rho = float(np.corrcoef(depth, ranks)[0, 1])
    if n < LEAST_TREND:
        return rho, None
    ranks = ranks[np.argsort(x)]
    phi = autocorrelation.estimate(ranks, trend=True, raised=autocorrelation.caution(n, trend=False) + RANK_CAUTION)
    # Of a slope on independent noise, √RSS·√(1/(S_xx·(n−2))) is one standard error.
    spread = n * (n**2 - 1) / 12
    reach = float(autocorrelation.reach(phi, n, trend=True, level=level)) * math.sqrt(spread * (n - 2))
    half = reach * math.sqrt((1 + rho**2 / 2) / (n - 1))
    z = math.atanh(max(-1 + 1e-15, min(1 - 1e-15, rho)))
    return rho, (min(rho, math.tanh(z - half)), max(rho, math.tanh(z + half)))


def spearman_of_text(track: np.ndarray, left_out: np.ndarray) -> tuple[float | None, Interval | None]:
    """`spearman` of a track that was read off a text with its layers' numbers, joined with the sampling of prompts.

    Parameters
    ----------
    left_out : (group, layer) the track with each group of prompts left out; fewer than two, or an undefined one, add
        nothing.
    """
    depth = np.arange(len(track))
    rho, over_depth = spearman(depth, track)
    if over_depth is None or len(left_out) < 2 or not np.isfinite(left_out).all():
        return rho, over_depth
    without = [spearman(depth, each)[0] for each in left_out]
    if None in without:
        return rho, over_depth
    return rho, with_prompts(rho, over_depth, without, within=(-1.0, 1.0))


def slope(track: np.ndarray, *, level: float = LEVEL) -> tuple[float, Interval | None]:
    """Least-squares slope of a (layer) track over depth and Student's interval under persistent noise.

    Of ln y it is the rate b of a·e^{bℓ}. No interval below `LEAST_TREND` layers.
    """
    n = len(track)
    depth = np.arange(n) - (n - 1) / 2
    value = float(depth @ track / (depth @ depth))
    if n < LEAST_TREND:
        return value, None
    residual = track - track.mean() - value * depth
    raised = autocorrelation.caution(n, trend=True)
    phi = autocorrelation.persistence(autocorrelation.lag_one(residual), n, trend=True, raised=raised)
    half = float(autocorrelation.reach(phi, n, trend=True, level=level)) * float(np.linalg.norm(residual))
    return value, (value - half, value + half)


def jackknife_error(left_out: Sequence[float] | np.ndarray) -> float:
    """Standard error of a statistic from its values with one of k ≥ 2 groups of prompts left out at a time.

    √((k − 1)/k·Σ(θ₍ᵢ₎ − θ̄)²).

    >>> round(jackknife_error([2.5, 2.0, 1.5]), 12) == round((1 / 3) ** 0.5, 12)  # leaving out 1, 2, 3: s/√n
    True
    """
    values = np.asarray(left_out, dtype=float)
    if len(values) < 2:
        raise ValueError(f"a jackknife needs at least two groups, got {len(values)}")
    return float(np.sqrt((len(values) - 1) / len(values) * np.square(values - values.mean()).sum()))


def with_prompts(
    estimate: float,
    over_depth: Interval,
    left_out: Sequence[float] | np.ndarray,
    *,
    level: float = LEVEL,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """An interval over depth, joined with the sampling of prompts: the two half-widths add in squares, end by end.

    Parameters
    ----------
    left_out : the statistic with one group of prompts left out at a time (`jackknife_error`); Student's t with one
        degree of freedom fewer than groups.
    within : the statistic's range; the interval does not leave it.
    """
    half = float(special.stdtrit(len(left_out) - 1, (1 + level) / 2)) * jackknife_error(left_out)
    low, high = over_depth
    below, above = estimate - math.hypot(estimate - low, half), estimate + math.hypot(high - estimate, half)
    return min(estimate, max(below, within[0])), max(estimate, min(above, within[1]))
