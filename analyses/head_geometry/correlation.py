"""Correlation of two numbers per head, split into parts within and between layers, and its chance levels.

Pearson's r over all heads mixes two things: heads of one layer that differ from their layer's mean (within), and layer
means that drift with depth (between). With η² the share of a variable's sum of squares that lies between layers,

    r = r_within·√((1 − η²_x)(1 − η²_y)) + r_between·η_x·η_y

so r can have the opposite sign of every layer's own (Simpson). Layers drift together for any reason or none, therefore
the layer, not the head, is the unit that is resampled (cluster bootstrap) and rearranged (shift null).

Arrays have axes (layer, head), float64, with NaN where a head has no value; both variables of a pair share their gaps.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from analyses.numerics import intervals
from analyses.numerics.permutations import arrangements

PARTS = ("pooled", "within", "between")
CONSTANT_TOLERANCE = 1e-9  # range over magnitude below which a variable is constant: its rounding is 1e-15
EMPTY_PART = 1e-13  # variance of a standardised variable below which a part of it is rounding
TIE = 1e-12  # |r| of two arrangements that differ by less are equal but for rounding
PERMUTATIONS = 999  # of heads inside layers; the least p is then 0.001
BLOCK = 2**22  # random keys held at once, to bound memory


def varies(x: np.ndarray) -> bool:
    """Whether a variable has at least two distinct values, beyond rounding."""
    known = x[np.isfinite(x)]
    return known.size > 1 and float(np.ptp(known)) > CONSTANT_TOLERANCE * float(np.abs(known).max())


def standardise(x: np.ndarray) -> np.ndarray:
    """(…, layer, head) of zero mean and unit (population) deviation over the known heads."""
    known = np.isfinite(x)
    count = known.sum((-2, -1), keepdims=True)
    centred = x - np.where(known, x, 0).sum((-2, -1), keepdims=True) / count
    return centred / np.sqrt(np.square(np.where(known, centred, 0)).sum((-2, -1), keepdims=True) / count)


def layer_sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(…, layer, 9): heads, Σx, Σy, Σx², Σy², Σxy of the standardised variables, and Σ(x−x̄)², Σ(y−ȳ)²,
    Σ(x−x̄)(y−ȳ) about the layer's own means.

    They add over layers and are all that the three correlations need, so a resample of layers is a sum of rows.
    """
    x, y = np.broadcast_arrays(standardise(x), standardise(y))
    a, b = (_filled(v) for v in (x, y))
    c, d = (_inside(v) for v in (x, y))
    terms = [np.isfinite(x).astype(float), a, b, a * a, b * b, a * b, c * c, d * d, c * d]
    return np.moveaxis(np.stack(terms).sum(-1), 0, -1)


def _head_means(v: np.ndarray) -> np.ndarray:
    """(…, layer, 1) means over the known heads; NaN for a layer that has none."""
    known = np.isfinite(v)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, v, 0).sum(-1, keepdims=True) / known.sum(-1, keepdims=True)


def _filled(v: np.ndarray) -> np.ndarray:
    """With 0 for its gaps."""
    return np.where(np.isfinite(v), v, 0.0)


def correlations(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Pooled, within-layer and between-layer r from (..., 9) sums over layers; NaN where a part has no spread.

    Also `x_between` and `y_between`, the shares η² of the sums of squares that lie between layers.
    """
    n, x, y, xx, yy, xy, *within = np.moveaxis(sums, -1, 0)
    total = [xx - x * x / n, yy - y * y / n, xy - x * y / n]
    between = [t - w for t, w in zip(total, within, strict=True)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "pooled": _ratio(total, n),
            "within": _ratio(within, n),
            "between": _ratio(between, n),
            "x_between": np.clip(between[0] / total[0], 0, 1),
            "y_between": np.clip(between[1] / total[1], 0, 1),
        }


def pearson(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """The three parts of r between two (layer, head) variables that both vary, and both η²; None where undefined."""
    return {name: _known(value) for name, value in correlations(layer_sums(x, y).sum(0)).items()}


def spearman(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """Rank correlations: over all heads, over ranks taken inside each layer, and over layer means."""
    inside = [_ranks(v) for v in (x, y)]
    means = [_head_means(v) for v in (x, y)]
    return {
        "pooled": pooled_spearman(x, y),
        "within": pearson(*inside)["within"] if all(map(varies, inside)) else None,
        "between": pooled_spearman(*means),
    }


def pooled_spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """The rank correlation over all heads."""
    ranks = [_ranks(v.ravel()).reshape(v.shape) for v in (x, y)]
    return pearson(*ranks)["pooled"] if all(map(varies, ranks)) else None


def by_layer(x: np.ndarray, y: np.ndarray) -> list[float | None]:
    """Each layer's own r over its heads."""
    return [_known(r) for r in correlations(layer_sums(x, y))["pooled"]]


def cluster_intervals(x: np.ndarray, y: np.ndarray, *, seed: int) -> dict[str, intervals.Interval | None]:
    """90 % interval of each part of r, resampling whole layers; None where a resample has no such part."""
    sums = layer_sums(x, y)

    def resampled(drawn: np.ndarray) -> np.ndarray:
        found = correlations(intervals.times_drawn(drawn) @ sums)
        return np.stack([found[part] for part in PARTS], axis=-1)

    levels = [intervals.LEVEL] * len(PARTS)
    found = intervals.bootstraps(resampled, len(sums), seed=seed, levels=levels, within=(-1.0, 1.0))
    return dict(zip(PARTS, found, strict=True))


def shift_null(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(…, arrangement): pooled r with the layers of x rearranged against those of y; head indices stay.

    x, y : (…, layer, head); their leading axes broadcast, so that many pairs are rearranged at once.
    """
    x, y = standardise(x), standardise(y)
    known_x, known_y = np.isfinite(x).astype(float), np.isfinite(y).astype(float).swapaxes(-1, -2)
    x, y = _filled(x), _filled(y).swapaxes(-1, -2)
    # One sum per pair of layers (layer of x, layer of y), added along each arrangement.
    pairs = [known_x @ known_y, x @ known_y, known_x @ y, (x * x) @ known_y, known_x @ (y * y), x @ y]
    order = arrangements(x.shape[-2])
    n, x, y, xx, yy, xy = (pair[..., order, np.arange(len(order[0]))].sum(-1) for pair in pairs)
    return _ratio([xx - x * x / n, yy - y * y / n, xy - x * y / n], n)


def permutation_null(x: Sequence[np.ndarray], y: np.ndarray, *, seed: int, count: int = PERMUTATIONS) -> np.ndarray:
    """(permutation, variable): within-layer r of several x with y, after permuting y's heads inside each layer.

    Parameters
    ----------
    x : variables (layer, head), with gaps where y has them.
    """
    known = np.isfinite(y)
    front = np.argsort(~known, axis=1, kind="stable")  # known heads first, so that a permutation of them is a sort
    known = np.take_along_axis(known, front, 1)
    deviations = [_inside(np.take_along_axis(v, front, 1)) for v in (*x, y)]
    variables, y = np.stack(deviations[:-1], -1).reshape(-1, len(x)), deviations[-1]  # (layer·head, variable)
    size = np.sqrt(np.square(variables).sum(0) * np.square(y).sum())
    rng = np.random.default_rng(seed)
    null = []
    block = max(1, BLOCK // y.size)
    for start in range(0, count, block):
        keys = rng.random((min(block, count - start), *y.shape))
        keys[:, ~known] = 2  # gaps stay behind
        shuffled = np.take_along_axis(np.broadcast_to(y, keys.shape), keys.argsort(-1), -1)
        null.append(shuffled.reshape(len(keys), -1) @ variables)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.concatenate(null) / size


def p_value(observed: float, null: np.ndarray) -> float:
    """Two-sided (1 + number with |r| at least as large)/(1 + number); the observed arrangement counts as one."""
    return (1 + int((np.abs(null) >= abs(observed) - TIE).sum())) / (1 + len(null))


def _ratio(sums: list[np.ndarray], n: np.ndarray) -> np.ndarray:
    """xy/√(xx·yy) from the sums (xx, yy, xy) of a part, NaN where x or y has no spread in it."""
    spread = (sums[0] > EMPTY_PART * n) & (sums[1] > EMPTY_PART * n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread, np.clip(sums[2] / np.sqrt(sums[0] * sums[1]), -1, 1), np.nan)


def _inside(v: np.ndarray) -> np.ndarray:
    return _filled(v - _head_means(v))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Average ranks of the known values along the last axis, NaN elsewhere."""
    known = np.isfinite(values)
    return np.where(known, stats.rankdata(np.where(known, values, np.inf), axis=-1), np.nan)  # gaps come last


def _known(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
