"""Medians and shares over heads, with bootstrap intervals over layers or over pairs of adjacent layers."""

from collections.abc import Callable

import numpy as np

from analyses.numerics import intervals
from analyses.numerics.intervals import bootstrap, times_drawn
from analyses.records import Metric

MIXED = (0.2, 0.8)  # share of negative energy between which a head counts as of mixed sign
MATCHED = "at the best matching of heads"


def medians(rows: np.ndarray) -> np.ndarray:
    """(row,) medians of (row, value) numbers, NaN left out; NaN where all of a row's are.

    The same bits as `np.nanmedian` of each row, at once: it goes through rows one by one.

    >>> medians(np.array([[3.0, 1.0, np.nan, 2.0], [4.0, 1.0, 2.0, 3.0]])).tolist()
    [2.0, 2.5]
    """
    ordered = np.sort(rows, axis=1)  # NaN last
    count, at = (~np.isnan(ordered)).sum(1), np.arange(len(rows))
    return (ordered[at, np.maximum(count - 1, 0) // 2] + ordered[at, count // 2]) / 2


def shares(rows: np.ndarray) -> np.ndarray:
    """(row,) means of (row, value) numbers, NaN left out; NaN where all of a row's are."""
    known = ~np.isnan(rows)
    return np.where(known, rows, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)


def _resampled_shares(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """`shares` of the (unit, head) values of the units drawn, of which each has one."""
    known = ~np.isnan(values)
    counts = times_drawn(drawn)
    return (counts @ np.where(known, values, 0).sum(1)) / (counts @ known.sum(1))


def over_pairs(values: np.ndarray, how: str, *, seed: int) -> Metric:
    """Median over pairs and heads of (pair, head) values, where NaN means not measured."""
    reason = "in every pair of adjacent layers, no two heads could be compared"
    what = f"median over pairs of adjacent layers and heads, {how}"
    return _over("pairs", values, medians, intervals.medians, what, reason=reason, seed=seed)


def median_over_layers(values: np.ndarray, *, reason: str, seed: int) -> Metric:
    """Median over layers and heads of (layer, head) values, where NaN means not measured."""
    return _over("layers", values, medians, intervals.medians, "median over layers and heads", reason=reason, seed=seed)


def mixed_sign_share(negative: np.ndarray, *, reason: str, seed: int) -> Metric:
    """Share of heads whose negative energy lies in `MIXED`, from (layer, head) curvatures."""
    mixed = np.where(np.isnan(negative), np.nan, (negative >= MIXED[0]) & (negative <= MIXED[1]))
    return _over("layers", mixed, shares, _resampled_shares, "share of heads", reason=reason, seed=seed)


def _over(
    units: str,
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    of_drawn: Callable[[np.ndarray, np.ndarray], np.ndarray],
    what: str,
    *,
    reason: str,
    seed: int,
) -> Metric:
    """A statistic of (unit, head) values, of rows of values at once, and its bootstrap over the units that have any.

    of_drawn : the same of resampled units, from the values and (resample, unit) indices.
    """
    known = values[~np.isnan(values).all(axis=1)]
    n = {units: len(known), "heads": int((~np.isnan(known)).sum())}
    if not len(known):
        return Metric(value=None, n=n, reason=reason)
    return Metric(
        value=float(statistic(known.reshape(1, -1))[0]),
        interval=bootstrap(lambda drawn: of_drawn(known, drawn), len(known), seed=seed, track=statistic(known)),
        n=n,
        method=f"{what}; bootstrap over {units}",
    )
