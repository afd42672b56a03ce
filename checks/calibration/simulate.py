"""Tracks and heads of known truth, and how often intervals and tests that see them are right.

Tracks have L layers and Gaussian noise of unit variance with correlation φ^|i−j|. Every trial has its own seed.
Axes: trial, layer, head.
"""

from collections.abc import Callable, Mapping

import numpy as np

from analyses.head_geometry import gained
from analyses.numerics import intervals
from analyses.numerics.autocorrelation import noise
from analyses.schedule_fit import chance

LENGTHS = (12, 24, 48)
PERSISTENCE = {"independent": 0.0, "φ = 0.5": 0.5, "φ = 0.8": 0.8, "φ = 0.9": 0.9}
DRIFT = PERSISTENCE | {"walk": 1.0}
GROUPS = ((8, 4), (16, 4), (14, 2))  # query heads, key/value heads
TREND = 2.5  # noise deviations from the first layer to the last
PER_LAYER = 0.2  # noise deviations, of two unrelated trends
ABS_MEDIAN = 0.6744897501960817  # of a standard normal variable's absolute value
# Spearman's ρ of uniform depth with TREND·depth + standard noise, from 5·10⁶ draws.
RANK_TRUTH = 0.5884

Covers = Callable[[np.ndarray, int], bool]


def _median(track: np.ndarray, seed: int) -> bool:
    return _inside(_bootstrap(np.median, track, seed), 0.0)


def _magnitude(track: np.ndarray, seed: int) -> bool:
    return _inside(_bootstrap(np.median, np.abs(track), seed), ABS_MEDIAN)


def _mean(track: np.ndarray, seed: int) -> bool:
    return _inside(_bootstrap(np.mean, track, seed), 0.0)


def _spearman(track: np.ndarray, seed: int) -> bool:
    depth = np.arange(len(track))
    found = intervals.spearman(depth, track + TREND * depth / (len(track) - 1))[1]
    return _inside(found, RANK_TRUTH)


def _no_trend(track: np.ndarray, seed: int) -> bool:
    return _inside(intervals.spearman(np.arange(len(track)), track)[1], 0.0)


def _slope(track: np.ndarray, seed: int) -> bool:
    return _inside(intervals.slope(track)[1], 0.0)


def _r2(track: np.ndarray, seed: int) -> bool:
    log = track + TREND * np.arange(len(track)) / (len(track) - 1)
    curve = np.polynomial.Polynomial.fit(np.arange(len(log)), log, 1)(np.arange(len(log)))
    signal = float(np.var(TREND * np.arange(len(track)) / (len(track) - 1)))
    return _inside(chance.r2_interval(log, curve, chance.EXPONENTIAL_LAW, seed=seed), signal / (signal + 1))


INTERVALS: Mapping[str, tuple[Covers, int]] = {
    "median of a track": (_median, 4),
    "median of magnitudes": (_magnitude, 4),
    "mean of a track": (_mean, 4),
    "Spearman with depth, no trend": (_no_trend, 1),
    "Spearman with depth, a trend": (_spearman, 1),
    "rate of an exponential law": (_slope, 1),
    "R² of an exponential law": (_r2, 4),
}
"""Interval → does it cover the truth; by how much fewer trials it gets, for its cost."""


def coverage(covers: Covers, length: int, phi: float, *, trials: int, seed: int) -> float:
    """Share of trials whose interval contains the truth."""
    tracks = noise(phi, (trials, length), np.random.default_rng([seed, length, int(100 * phi)]))
    return float(np.mean([covers(track, i) for i, track in enumerate(tracks)]))


def law_rejections(length: int, phi: float, *, trials: int, seed: int, rate: float = 0.0) -> float:
    """Share of tracks called an exponential law at 5 %; `rate` per layer is planted, in noise deviations."""
    rng = np.random.default_rng([seed, 1, length, int(100 * phi)])
    tracks = noise(phi, (trials, length), rng) + rate * np.arange(length)
    p = [chance.against_chance(t, t, _line_r2, seed=i).p for i, t in enumerate(tracks)]
    return float(np.mean(np.array(p) <= 0.05))


def shift_rejections(
    length: int, phi: float, *, trials: int, seed: int, trend: float = 0.0, planted: float = 0.0, heads: int = 8
) -> float:
    """Share of two (layer, head) variables called related at 5 % by the detrended shift test, layer means of `phi`."""
    rng = np.random.default_rng([seed, 2, length, int(100 * phi)])
    p = []
    for _ in range(trials):
        slopes = trend * rng.choice([-1, 1], (2, 1, 1)) * np.arange(length)[:, None]
        means = noise(phi, (2, length), rng)[..., None]
        x, y = slopes + means + rng.standard_normal((2, length, heads))
        if planted:
            x, y = ((v - v.mean()) / v.std() for v in (x, y))
            y = planted * x + np.sqrt(1 - planted**2) * y
        p.append(gained.shift_test([x], y))
    return float(np.mean(np.array(p) <= 0.05))


def within_rejections(
    length: int, heads: int, groups: int, *, trials: int, seed: int, planted: float = 0.0, moved: int | None = None
) -> float:
    """Share called related within layers at 5 %; heads of a group correlate at 0.5; `moved` groups are permuted."""
    rng = np.random.default_rng([seed, 3, length, heads, groups])
    p = []
    for trial in range(trials):
        shared = np.repeat(rng.standard_normal((2, length, groups)), heads // groups, axis=-1)
        x, y = (shared + rng.standard_normal((2, length, heads))) / np.sqrt(2)
        y = planted * x + np.sqrt(1 - planted**2) * y
        p.append(gained.within_test(x, y, groups=moved or groups, seed=trial, draws=199))
    return float(np.mean(np.array(p) <= 0.05))


def _line_r2(logs: np.ndarray) -> np.ndarray:
    return chance.best_r2(logs, chance.EXPONENTIAL_LAW)


def _bootstrap(reduce: Callable[..., np.ndarray], track: np.ndarray, seed: int) -> intervals.Interval | None:
    return intervals.bootstrap(lambda drawn: reduce(track[drawn], axis=1), len(track), seed=seed, track=track)


def _inside(interval: intervals.Interval | None, truth: float) -> bool:
    return interval is not None and interval[0] <= truth <= interval[1]
