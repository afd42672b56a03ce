"""The most that a law over depth can explain of a track: what the best rising or falling curve does.

Every one-piece form (`forms.ONE_PIECE`) rises or falls all the way, so that none leaves less of the track than isotonic
regression does. That has a closed form: at layer ℓ of the best rising curve stands the largest, over beginnings a ≤ ℓ,
of the least mean of y_a … y_b over ends b ≥ ℓ (Barlow & Brunk 1972, J. Am. Stat. Assoc. 67, 140). Axes: track, layer.
"""

import numpy as np

SLACK = 1e-9  # of R²: more than the rounding of a fit, so that no fit exceeds its bound


def most_r2(logs: np.ndarray) -> np.ndarray:
    """(track,) bound of R² over all curves that rise or fall, of (track, layer) ln y; that of a flat track is 1."""
    target = logs - logs.mean(1, keepdims=True)
    whole = np.square(target).sum(1)
    left = np.minimum(_rising(target), _rising(-target))
    return 1 + SLACK - np.divide(left, whole, out=np.zeros(len(logs)), where=whole > 0)


def _rising(target: np.ndarray) -> np.ndarray:
    """(track,) residual sum of squares of the best rising curve."""
    layers = target.shape[1]
    sums = np.concatenate([np.zeros((len(target), 1)), target.cumsum(1)], axis=1)
    best = np.full((len(target), layers), -np.inf)
    for first in range(layers):
        means = (sums[:, first + 1 :] - sums[:, first, None]) / np.arange(1, layers - first + 1)
        least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        np.maximum(best[:, first:], least, out=best[:, first:])
    return np.square(target - best).sum(1)
