"""Tracks over depth that chance could have made: walks, autoregressions and orders of a track's own values.

Axes: draw, layer.
"""

import numpy as np

from analyses.numerics import autocorrelation

KINDS = ("walks", "autoregressions", "orders")


def walks(track: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draw, layer): from the track's start, its own steps in random order and with random signs.

    The sizes of the steps are the model's, their direction is chance's; no distribution is assumed.
    """
    steps = rng.permuted(np.broadcast_to(np.diff(track), (draws, len(track) - 1)), axis=-1)
    steps = steps * rng.choice([-1.0, 1.0], size=steps.shape)
    return track[0] + np.concatenate([np.zeros((draws, 1)), steps.cumsum(-1)], axis=-1)


def autoregressions(track: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draw, layer): stationary Gaussian tracks of the track's mean, spread and persistence, without a trend."""
    phi = float(autocorrelation.estimate(track, trend=True, raised=0))
    return track.mean() + track.std() * autocorrelation.noise(phi, (draws, len(track)), rng)


def orders(track: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draw, layer): the track's values in random order."""
    return rng.permuted(np.broadcast_to(track, (draws, len(track))), axis=-1)


def about(
    curve: np.ndarray, residual: np.ndarray, draws: int, rng: np.random.Generator, *, raised: float = 0
) -> np.ndarray:
    """(draw, layer): a curve with noise of the persistence and spread of a fit's residuals, for power and intervals.

    The spread is that before fitting two parameters, √(RSS/tr(MR)) at that persistence, which is `raised` by so
    many standard errors.
    """
    n = len(curve)
    raw = autocorrelation.lag_one(residual)
    phi = float(autocorrelation.persistence(raw, n, trend=True, raised=raised))
    table = autocorrelation.precision(n, trend=True)
    apart = np.abs(np.arange(n)[:, None] - np.arange(n))
    left = float(np.trace(table.residual @ phi**apart))
    spread = np.sqrt(np.square(residual).sum() / left)
    return curve + spread * autocorrelation.noise(phi, (draws, n), rng)
