"""Sections of the page: the question, figures, numbers in prose and limits of one analysis, with helpers for tables."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checks.figures.geometry import Column, Figure, Table, Value
from checks.figures.numbers import column
from checks.maps.names import MAPS

Record = Mapping[str, Any]

CROWDED = 600  # heads; of more, dots lie on each other and none can be pointed at


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One quantity as published and as corrected, both as written."""

    quantity: str
    published: str
    corrected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One analysis on the page. The prose of its method is in the template of the same name."""

    name: str  # of the analysis
    question: str
    short: str  # in the list of contents
    figures: Callable[[Record], Mapping[str, Figure]]
    facts: Callable[[Record], Mapping[str, str]]  # numbers for the prose, as written
    published: Callable[[Record], Sequence[Comparison]]
    limits: tuple[str, ...]  # what the numbers cannot say, whatever the model


def table(
    caption: str, row: str, names: Sequence[str], columns: Mapping[str, Sequence[Value] | Sequence[str]]
) -> Table:
    """Columns of numbers under their names, one row for each of `names`; text columns stay as they are."""
    written = [
        [str(v) for v in values] if any(isinstance(v, str) for v in values) else column(values)
        for values in columns.values()
    ]
    return Table(
        caption=caption,
        columns=(Column(name=row), *(Column(name=name) for name in columns)),
        rows=tuple(zip(names, *written, strict=True)),
    )


def invariance(answers: Mapping[str, Mapping[str, bool]]) -> Table | None:
    """Statistics and the exact changes of parameters that move them, from the manifest; None where nothing is known."""
    if not answers:
        return None
    maps = [name for name in MAPS if name in next(iter(answers.values()))]
    return Table(
        caption="Some model’s number moves, or loses its value, under these changes; under all others it stays.",
        columns=(Column(name="number in the record"), Column(name="is moved by")),
        rows=tuple(
            (statistic, ", ".join(name for name in maps if not cells[name]) or "none of them")
            for statistic, cells in answers.items()
        ),
    )


def median(values: Iterable[Value]) -> float | None:
    """Median of what was measured; None where nothing was."""
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def spread_by_layer(values: Sequence[Sequence[Value]]) -> dict[str, list[Value]]:
    """Columns with the least, the median and the greatest number over the heads of each layer."""
    known = [[v for v in row if v is not None] for row in values]
    return {
        "least": [min(row, default=None) for row in known],
        "median": [median(row) for row in known],
        "greatest": [max(row, default=None) for row in known],
    }


def random_cos(hidden: int) -> float:
    """Mean |cos| of two random directions in many dimensions, √(2/(π·hidden))."""
    return math.sqrt(2 / (math.pi * hidden))


def layer_names(count: int) -> list[str]:
    return [str(layer) for layer in range(count)]


def pair_names(count: int) -> list[str]:
    """Pairs of adjacent layers, "0–1" and so on; `count` pairs."""
    return [f"{layer}–{layer + 1}" for layer in range(count)]
