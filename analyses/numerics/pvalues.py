"""Probabilities of chance: shares of a null, drawn one by one where that saves work, adjusted for many claims."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

STOP = 5  # exceedances at which a sequential test has seen enough: p is then above 0.05 for up to 99 draws
TIE = 1e-12  # relative to the observed value: two arrangements that differ by less are equal but for rounding


def share_at_least(null: np.ndarray, observed: float) -> float:
    """(1 + number of null values at least as large)/(1 + number of null values); the observed one counts as one.

    A null value that is NaN counts as large, so that p is never too small for want of a value.

    >>> share_at_least(np.array([1.0, 2.0, 3.0]), 3.0)
    0.5
    """
    null = np.asarray(null, dtype=float)
    return (1 + int((~(null < observed - TIE * abs(observed))).sum())) / (1 + null.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequential:
    """A Monte Carlo p-value drawn until it is known well enough."""

    p: float
    draws: int  # that had a value
    exceedances: int
    undefined: int  # draws without a value: they count for nothing


def sequential(
    draw: Callable[[int], float | None], observed: float, *, limit: int, stop: int = STOP, attempts: int | None = None
) -> Sequential:
    """p of an observed value among draws from a null, stopped at `stop` exceedances (Besag & Clifford 1991).

    p = exceedances/draws where it stopped, (exceedances + 1)/(draws + 1) otherwise; P(p ≤ α) ≤ α either way.

    Parameters
    ----------
    draw : attempt number, from 0 → the statistic; None where it is undefined.
    limit : draws with a value at most, 19 for p = 0.05.
    attempts : draws with or without a value at most; twice `limit` by default.

    Raises ValueError if no draw has a value.
    """
    exceedances = draws = undefined = 0
    for attempt in range(2 * limit if attempts is None else attempts):
        if exceedances == stop or draws == limit:
            break
        value = draw(attempt)
        if value is None:
            undefined += 1
            continue
        draws += 1
        exceedances += value >= observed - TIE * abs(observed)
    if not draws:
        raise ValueError("no draw from the null has a value")
    p = sequential_p(exceedances, draws, stop=stop)
    return Sequential(p=p, draws=draws, exceedances=exceedances, undefined=undefined)


def sequential_p(exceedances: int, draws: int, *, stop: int = STOP) -> float:
    """The p-value of draws that ended at `stop` exceedances, or at a number of draws chosen beforehand.

    >>> sequential_p(0, 19), sequential_p(5, 8)
    (0.05, 0.625)
    """
    return exceedances / draws if exceedances >= stop else (exceedances + 1) / (draws + 1)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the given order: no error among all with probability 1 − α.

    >>> [round(x, 6) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.asarray(p, float)[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted.tolist()


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's (1995) adjusted p-values: a share of at most α of those below α is false.

    >>> [round(x, 6) for x in benjamini_hochberg([0.01, 0.04, 0.03])]
    [0.03, 0.04, 0.04]
    """
    return stats.false_discovery_control(p, method="bh").tolist() if len(p) else []


def power(test: Callable[[int], float], trials: int, *, level: float = 0.05) -> float:
    """Share of planted effects that a test sees: trials whose p-value is at most `level`.

    Parameters
    ----------
    test : trial number → p-value of a fresh plant.
    """
    return sum(test(trial) <= level for trial in range(trials)) / trials
