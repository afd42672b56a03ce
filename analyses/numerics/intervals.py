"""Sampling errors: seeded bootstraps and a rank correlation's interval.

Every interval is 90 %, so that each end is a one-sided 95 % bound.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

LEVEL = 0.90  # two-sided; each end alone is a 95 % bound
RESAMPLES = 2000  # percentile ends then have a Monte Carlo error of about 0.5 percentage points


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """Percentile interval of a statistic of n exchangeable units (layers or layer pairs).

    Parameters
    ----------
    statistic : takes (resample, n) integer indices of the units drawn, returns (resample,) values.
    n : number of units.

    Returns
    -------
    (low, high), or None for fewer than two units or when a resample has no finite value.
    """
    if n < 2:
        return None
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    values = np.asarray(statistic(drawn), dtype=float)
    if not np.isfinite(values).all():
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float | None, tuple[float, float] | None]:
    """Spearman's ρ and its interval by Fisher's z with the standard error of Bonett & Wright (2000).

    SE = √((1 + ρ²/2)/(n − 3)) takes the points as independent; whether a drifting track passes by
    drift alone is a question for the control, not for this interval.

    Returns (None, None) for a constant input or fewer than 3 points, no interval below 4 points.
    """
    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    rho = float(stats.spearmanr(x, y).statistic)
    if n < 4:
        return rho, None
    half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    z = math.atanh(max(-1 + 1e-15, min(1 - 1e-15, rho)))
    return rho, (math.tanh(z - half), math.tanh(z + half))
