"""Tracks and heads of known truth, and how often intervals that see them hold it.

Tracks have L layers and Gaussian noise of unit variance with correlation φ^|i−j|. Every trial has its own seed.
Axes: trial, layer, head.
"""

from collections.abc import Callable, Mapping

import numpy as np

from analyses.head_geometry import gained
from analyses.head_geometry.regression import regress
from analyses.null_residual.invariant import first_mode_interval
from analyses.numerics import intervals
from analyses.numerics.autocorrelation import noise
from analyses.schedule_fit import chance

LENGTHS = (8, 12, 24, 48)
PERSISTENCE = {"independent": 0.0, "φ = 0.5": 0.5, "φ = 0.8": 0.8, "φ = 0.9": 0.9}
HEADS, GROUPS = 8, 4
TREND = 2.5  # noise deviations from the first layer to the last
BEND = 5.0  # of a track that rises at both ends, noise deviations
RELATED = 0.5  # correlation of heads, and the share of variance that a regression explains
TOGETHER = 0.7  # correlation of scales that share a mode
SCALES = 4
PROMPT_GROUPS = 10
ABS_MEDIAN = 0.6744897501960817  # of a standard normal variable's absolute value
# Spearman's ρ of uniform depth with TREND·depth + standard noise, from 5·10⁶ draws.
RANK_TRUTH = 0.5884

Covers = Callable[[np.ndarray, float, int], bool]  # (track, φ for what else is drawn, seed) → whether it is covered


def _median(track: np.ndarray, phi: float, seed: int) -> bool:
    return _inside(_bootstrap(np.median, track, seed), 0.0)


def _magnitude(track: np.ndarray, phi: float, seed: int) -> bool:
    return _inside(_bootstrap(np.median, np.abs(track), seed), ABS_MEDIAN)


def _mean(track: np.ndarray, phi: float, seed: int) -> bool:
    return _inside(_bootstrap(np.mean, track, seed), 0.0)


def _bent(track: np.ndarray, phi: float, seed: int) -> bool:
    """The mean of a track that rises towards both ends, about its own curve."""
    depth = np.linspace(-1, 1, len(track))
    curve = np.exp(-4 * (depth + 1)) + np.exp(-5 * (1 - depth))
    return _inside(_bootstrap(np.mean, track + BEND * (curve - curve.mean()), seed), 0.0)


def _of_text(track: np.ndarray, phi: float, seed: int) -> bool:
    """A median over layers of what a text of ten groups of prompts shows: a part of each group is common to layers."""
    rng = np.random.default_rng([seed, 1])
    prompts = rng.standard_normal((PROMPT_GROUPS, 1)) + rng.standard_normal((PROMPT_GROUPS, len(track)))
    values = track + prompts.mean(0)
    left_out = [np.median(track + np.delete(prompts, i, 0).mean(0)) for i in range(PROMPT_GROUPS)]
    over_depth = _bootstrap(np.median, values, seed)
    return _inside(intervals.with_prompts(float(np.median(values)), over_depth, left_out), 0.0)


def _spearman(track: np.ndarray, phi: float, seed: int) -> bool:
    depth = np.arange(len(track))
    found = intervals.spearman(depth, track + TREND * depth / (len(track) - 1))[1]
    return _inside(found, RANK_TRUTH)


def _no_trend(track: np.ndarray, phi: float, seed: int) -> bool:
    return _inside(intervals.spearman(np.arange(len(track)), track)[1], 0.0)


def _slope(track: np.ndarray, phi: float, seed: int) -> bool:
    return _inside(intervals.slope(track)[1], 0.0)


def _r2(track: np.ndarray, phi: float, seed: int) -> bool:
    log = track + TREND * np.arange(len(track)) / (len(track) - 1)
    curve = np.polynomial.Polynomial.fit(np.arange(len(log)), log, 1)(np.arange(len(log)))
    signal = float(np.var(TREND * np.arange(len(track)) / (len(track) - 1)))
    return _inside(chance.r2_interval(log, curve, chance.EXPONENTIAL_LAW, seed=seed), signal / (signal + 1))


def _related(part: str) -> Covers:
    def covers(track: np.ndarray, phi: float, seed: int) -> bool:
        x, other = (heads(phi, len(track), np.random.default_rng([seed, k])) for k in (2, 3))
        y = RELATED * x + np.sqrt(1 - RELATED**2) * other
        return _inside(gained.r_interval(x, y, part, 1.0, seed), RELATED)

    return covers


def _regression(track: np.ndarray, phi: float, seed: int) -> bool:
    """R² in layers that were left out, of three predictors that explain RELATED of the variance."""
    x = np.stack([heads(phi, len(track), np.random.default_rng([seed, k])) for k in (2, 3, 4)], -1).reshape(-1, 3)
    own = heads(phi, len(track), np.random.default_rng([seed, 5])).ravel()
    y = np.sqrt(RELATED / 3) * x.sum(1) + np.sqrt(1 - RELATED) * own
    layer = np.repeat(np.arange(len(track)), HEADS)
    return _inside(regress(("a", "b", "c"), x, y, layer, seed=seed).r2_out_of_sample_interval, RELATED)


def _first_mode(track: np.ndarray, phi: float, seed: int) -> bool:
    own = noise(phi, (SCALES, len(track)), np.random.default_rng([seed, 6]))
    found = first_mode_interval(np.sqrt(TOGETHER) * track + np.sqrt(1 - TOGETHER) * own, seed=seed)
    return _inside(found, (1 + (SCALES - 1) * TOGETHER) / SCALES)


INTERVALS: Mapping[str, tuple[Covers, int]] = {
    "median of a track": (_median, 4),
    "median of magnitudes": (_magnitude, 4),
    "mean of a track": (_mean, 4),
    "mean of a bent track": (_bent, 4),
    "median, of a text": (_of_text, 4),
    "Spearman with depth, no trend": (_no_trend, 1),
    "Spearman with depth, a trend": (_spearman, 1),
    "rate of an exponential law": (_slope, 1),
    "R² of an exponential law": (_r2, 4),
    "r over all heads": (_related("pooled"), 4),
    "r within layers": (_related("within"), 4),
    "R² of a regression, layers left out": (_regression, 4),
    "share of the first mode": (_first_mode, 4),
}
"""Interval → does it cover the truth; by how much fewer trials it gets, for its cost."""


def coverage(covers: Covers, length: int, phi: float, *, trials: int, seed: int) -> float:
    """Share of trials whose interval contains the truth."""
    tracks = noise(phi, (trials, length), np.random.default_rng([seed, length, int(100 * phi)]))
    return float(np.mean([covers(track, phi, 1000 * seed + i) for i, track in enumerate(tracks)]))


def heads(phi: float, length: int, rng: np.random.Generator, count: int = HEADS, groups: int = GROUPS) -> np.ndarray:
    """(layer, head): layer means of persistence φ, heads about them that correlate at 0.5 in a group; variance 2."""
    shared = np.repeat(rng.standard_normal((length, groups)), count // groups, axis=1)
    return noise(phi, (length,), rng)[:, None] + (shared + rng.standard_normal((length, count))) / np.sqrt(2)


def _bootstrap(reduce: Callable[..., np.ndarray], track: np.ndarray, seed: int) -> intervals.Interval | None:
    return intervals.bootstrap(lambda drawn: reduce(track[drawn], axis=1), len(track), seed=seed, track=track)


def _inside(interval: intervals.Interval | None, truth: float) -> bool:
    return interval is not None and interval[0] <= truth <= interval[1]
