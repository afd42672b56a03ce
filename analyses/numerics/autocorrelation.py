"""Persistence of a track over depth, and what it costs a mean or a slope in precision.

Neighbouring layers are alike, so n of them are worth fewer than n independent values. With noise of correlation
R_ij = φ^|i−j|, a linear estimate w·y and a design X (a constant, or a constant and depth; M projects off it),

    var(w·y) = σ²·wᵀRw,    E RSS = σ²·tr(MR),    degrees of freedom  tr(MR)²/tr(MRMR)  (Satterthwaite)

so that w·y ± t·√(wᵀRw·RSS/tr(MR)) is Student's interval under that noise, the usual one at φ = 0. φ comes from the
lag-one autocorrelation of the residuals, whose expectation tr(MRMS)/tr(MR) is turned around: it lies far below φ on a
short track. φ is then raised by `caution` standard errors, since an interval that took the estimate for the truth
would be too short half of the time.

The residuals of a slope are about the line itself. Those of a mean are about a parabola: about a line, a track that
bends over depth, as many do at both ends of a model, passes for a walk, of whose mean nothing is known. At 24 layers
that made the interval of a bent track 7 to 15 times as wide as its noise asks for, and covering 100 %.

Axes: layer. Zwiers & von Storch (1995), J. Climate 8, 336, on why an effective sample size alone does not do.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

HIGHEST = 0.98  # φ beyond which a track is a walk, of whose level it says nothing
HIGHEST_OF_MEAN = 0.9  # more is not allowed for: at φ = 0.8 it covers no better, and is twice as wide
GRID = np.linspace(0, HIGHEST, 99)


def caution(n: int, *, trend: bool) -> float:
    """Standard errors √((1−φ²)/n) by which φ is raised; for a mean more on a short track, where its estimate is skewed.

    Chosen by `make calibrate`: 85 % covered at least for φ up to 0.8, from 4 layers on.
    """
    return 1.2 if trend else min(1.8, 1 + 9 / n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What noise of each φ in `GRID` does to an estimate from n layers, by trend or level."""

    residual: np.ndarray  # (layer, layer) projection M off the design
    lag_one: np.ndarray  # (φ) expected lag-one autocorrelation of residuals, rising
    variance: np.ndarray  # (φ) wᵀRw/tr(MR): variance of the estimate per residual sum of squares
    freedom: np.ndarray  # (φ) degrees of freedom of the residual sum of squares


@lru_cache(maxsize=64)
def precision(n: int, *, trend: bool) -> Precision:
    """Of the slope over depth (`trend`) of n ≥ 3 layers, residuals about a line; or of the mean of n ≥ 4, about a
    parabola.
    """
    depth = np.arange(n) - (n - 1) / 2
    powers = np.stack([np.ones(n), depth, depth**2][: 2 if trend else 3], 1)
    design, _ = np.linalg.qr(powers)
    residual = np.eye(n) - design @ design.T
    weights = depth / (depth @ depth) if trend else np.full(n, 1 / n)
    shift = (np.eye(n, k=1) + np.eye(n, k=-1)) / 2
    apart = np.abs(np.arange(n)[:, None] - np.arange(n))
    lag_one, variance, freedom = np.empty((3, len(GRID)))
    for i, phi in enumerate(GRID):
        correlation = phi**apart
        left = residual @ correlation
        trace = np.trace(left)
        lag_one[i] = np.trace(left @ residual @ shift) / trace
        variance[i] = weights @ correlation @ weights / trace
        freedom[i] = trace**2 / np.trace(left @ left)
    return Precision(residual=residual, lag_one=np.maximum.accumulate(lag_one), variance=variance, freedom=freedom)


def lag_one(residuals: np.ndarray) -> np.ndarray:
    """Lag-one autocorrelation of centred (..., layer) residuals; 0 where they are all zero."""
    squares = np.square(residuals).sum(-1)
    products = (residuals[..., 1:] * residuals[..., :-1]).sum(-1)
    return np.where(squares > 0, products / np.where(squares > 0, squares, 1), 0.0)


def persistence(raw: np.ndarray | float, n: int, *, trend: bool, raised: float) -> np.ndarray:
    """φ of the noise behind a raw lag-one autocorrelation of residuals from n layers, 0 to HIGHEST or HIGHEST_OF_MEAN.

    Parameters
    ----------
    trend : whether it is for a slope over depth, residuals about a line; or for a mean, residuals about a parabola.
    raised : by so many standard errors; 0 for the estimate itself, `caution(n)` for an interval.
    """
    phi = np.interp(raw, precision(n, trend=trend).lag_one, GRID)
    return np.clip(phi + raised * np.sqrt((1 - phi**2) / n), 0, HIGHEST if trend else HIGHEST_OF_MEAN)


def estimate(track: np.ndarray, *, trend: bool, raised: float) -> np.ndarray:
    """φ of (..., layer) tracks about their line over depth (`trend`) or their parabola, see `persistence`."""
    n = track.shape[-1]
    return persistence(lag_one(track @ precision(n, trend=trend).residual), n, trend=trend, raised=raised)


def reach(phi: np.ndarray | float, n: int, *, trend: bool, level: float) -> np.ndarray:
    """Half-width of the two-sided interval at `level`, per √RSS: t·√(wᵀRw/tr(MR)), interpolated over `GRID`."""
    return np.interp(phi, GRID, _reaches(n, trend, level))


@lru_cache(maxsize=64)
def _reaches(n: int, trend: bool, level: float) -> np.ndarray:
    """`reach` over GRID."""
    table = precision(n, trend=trend)
    return special.stdtrit(table.freedom, (1 + level) / 2) * np.sqrt(table.variance)


def noise(phi: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(..., layer) stationary Gaussian noise of variance 1 and correlation φ^|i−j|; a walk of unit steps at φ = 1."""
    steps = rng.standard_normal(shape)
    if phi == 1:
        return steps.cumsum(-1)
    steps[..., 1:] *= np.sqrt(1 - phi**2)
    for layer in range(1, shape[-1]):
        steps[..., layer] += phi * steps[..., layer - 1]
    return steps
