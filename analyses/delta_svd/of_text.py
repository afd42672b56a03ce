"""Medians over layers or pairs of a statistic of the text, with both its errors: over depth, and over prompts.

A table has a row for each layer or pair; its first column is the statistic of the whole text, the others are the
statistic with each group of prompts left out. The intervals of `families.member` know of depth alone: a text of so
many prompts has an error of its own, which the jackknife over groups gives, and the two are joined.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from analyses.numerics.families import member
from analyses.numerics.intervals import LEVEL, Interval, jackknife_error, with_prompts
from analyses.records import Member

PROMPTS = "90 %, over depth by the bootstrap and over prompts by the jackknife, joined"


def table(rows: Sequence[torch.Tensor | None]) -> np.ndarray:
    """(row, value) with NaN where a row is missing."""
    width = max((len(row) for row in rows if row is not None), default=1)
    return np.array([np.full(width, np.nan) if row is None else row.numpy() for row in rows]).reshape(-1, width)


def beside(values: Sequence[float | None], without: Sequence[torch.Tensor | None]) -> np.ndarray:
    """The table of a statistic and of the same with each group left out, (row, 1 + group); no group: (row, 1)."""
    whole = np.array([[np.nan if value is None else value] for value in values], dtype=float)
    return np.hstack([whole, table(without)]) if any(row is not None for row in without) else whole


def medians(values: np.ndarray) -> np.ndarray:
    """Median of every column over the rows that are known throughout."""
    known = values[np.isfinite(values).all(1)]
    return np.median(known, axis=0) if len(known) else np.full(values.shape[1], np.nan)


def error(left_out: np.ndarray) -> float | None:
    """The text's standard error; None where a statistic is undefined, or the text cannot be cut."""
    return jackknife_error(left_out) if len(left_out) > 1 and np.isfinite(left_out).all() else None


def joined(
    value: float, over_depth: Interval | None, left_out: np.ndarray, level: float, within: tuple[float, float]
) -> Interval | None:
    """The interval over depth, and over prompts where these have an error."""
    if over_depth is None or error(left_out) is None:
        return over_depth
    return with_prompts(value, over_depth, left_out, level=level, within=within)


def median(
    values: np.ndarray, why: str, *, seed: int, families: int = 1, unit: str = "pairs", within: tuple[float, float]
) -> Member:
    """Median over the rows of a table's first column, its intervals joined with the sampling of prompts by the others.

    why : the reason where no row has a value.
    """
    one = member(values[:, 0].tolist(), seed=seed, families=families, unit=unit, within=within)
    if one.value is None:
        return replace(one, reason=why)
    left_out = medians(values)[1:]
    return replace(
        one,
        interval=joined(one.value, one.interval, left_out, LEVEL, within),
        bonferroni=joined(one.value, one.bonferroni, left_out, 1 - (1 - LEVEL) / families, within),
    )
