"""Medians and shares over heads, with bootstrap intervals over layers or over pairs of adjacent layers."""

from collections.abc import Callable

import numpy as np

from analyses.numerics.intervals import bootstrap
from analyses.records import Metric

MIXED = (0.2, 0.8)  # share of negative energy between which a head counts as of mixed sign
MATCHED = "at the best matching of heads"


def over_pairs(values: np.ndarray, how: str, *, seed: int) -> Metric:
    """Median over pairs and heads of (pair, head) values, where NaN means not measured."""
    reason = "in every pair of adjacent layers, no two heads could be compared"
    what = f"median over pairs of adjacent layers and heads, {how}"
    return _over("pairs", values, np.nanmedian, what, reason=reason, seed=seed)


def median_over_layers(values: np.ndarray, *, reason: str, seed: int) -> Metric:
    """Median over layers and heads of (layer, head) values, where NaN means not measured."""
    return _over("layers", values, np.nanmedian, "median over layers and heads", reason=reason, seed=seed)


def mixed_sign_share(negative: np.ndarray, *, reason: str, seed: int) -> Metric:
    """Share of heads whose negative energy lies in `MIXED`, from (layer, head) curvatures."""
    mixed = np.where(np.isnan(negative), np.nan, (negative >= MIXED[0]) & (negative <= MIXED[1]))
    return _over("layers", mixed, np.nanmean, "share of heads", reason=reason, seed=seed)


def _over(
    units: str,
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    what: str,
    *,
    reason: str,
    seed: int,
) -> Metric:
    """A statistic of (unit, head) values, and its bootstrap over the units that have any."""
    known = values[~np.isnan(values).all(axis=1)]
    n = {units: len(known), "heads": int((~np.isnan(known)).sum())}
    if not len(known):
        return Metric(value=None, n=n, reason=reason)
    return Metric(
        value=float(statistic(known)),
        interval=bootstrap(
            lambda drawn: np.array([statistic(known[i]) for i in drawn]),
            len(known),
            seed=seed,
            track=np.array([statistic(unit) for unit in known[:, None]]),
        ),
        n=n,
        method=f"{what}; bootstrap over {units}",
    )
