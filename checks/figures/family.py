"""One claim over many models: its number with its interval, against parameters or training steps."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from analyses.errors import InputError
from checks.figures import axes
from checks.figures.axes import Axis
from checks.figures.geometry import Column, Figure, Key, Shape
from checks.figures.geometry import Table as Numbers
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.figures.strips import SYMBOLS
from checks.tables.tables import Table

SHAPES: Mapping[str, Shape] = {
    "holds": "circle",
    "does not hold": "square",
    "undecided": "triangle",
    "coordinate-dependent": "diamond",
    "uninformative": "ring",
    "error": "cross",
}
"""As the signs of the verdicts everywhere else; a claim that does not apply has no number to draw."""

NAMED = 8  # points at most that have their model's name beside them
WIDTH = 560.0
SIGNS = 90  # of the axis' name that have room in WIDTH
AXES = ("parameters", "step")


def figure(family: Table, *, against: str | None = None) -> Figure:
    """The drawing of one claim's numbers.

    Parameters
    ----------
    family : a table of `across.family`, a row a result. against : one of AXES; steps where every model has one and they
        differ, unless given.

    Raises
    ------
    InputError : where fewer than two models have a number, or one has no place on the axis.
    """
    rows = [dict(zip(family.columns, row, strict=True)) for row in family.rows]
    drawn = [row for row in rows if row["observed"] is not None]
    if len(drawn) < 2:
        why = f"{len(drawn)} of {len(rows)} results have a number for {family.name}"
        raise InputError(f"{why}; a family needs two, or see `fathom tables --claim {family.name}` for the reasons")
    steps = {row["step"] for row in drawn}
    along = against or ("step" if None not in steps and len(steps) > 1 else "parameters")
    if along not in AXES:
        raise InputError(f"against '{along}'; expected one of {', '.join(AXES)}")
    if lacking := [row["model"] for row in drawn if row[along] is None]:
        raise InputError(f"{lacking[0]} has no {along} to stand at; leave it out, or draw against the other")
    drawn.sort(key=lambda row: (row[along], row["model"]))
    return _figure(family.name, along, drawn)


def _figure(claim: str, along: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    x = axis_of([row[along] for row in rows], along)
    ends = [row[key] for row in rows for key in ("observed", "low", "high")]
    limit, unit, comparator = (rows[0][key] for key in ("threshold", "unit", "comparator"))
    named = textwrap.shorten(f"{rows[0]['quantity']}{unit and f', {unit}'}", SIGNS, placeholder=" …")
    plot = Plot(x=x, y=axes.linear([*ends, limit], label=named), width=WIDTH, height=280)
    for row in rows:
        if row["low"] is not None:
            plot.line([place(row[along], x)] * 2, [row["low"], row["high"]], "s0")
    if limit is not None:
        plot.level(limit, "limit")
    for verdict, shape in SHAPES.items():
        mine = [row for row in rows if row["verdict"] == verdict]
        tips = [f"{row['model']}, {number(row[along])}: {number(row['observed'])}, {verdict}" for row in mine]
        xs, ys = [place(row[along], x) for row in mine], [row["observed"] for row in mine]
        plot.points(xs, ys, "s0", shape=shape, tips=tips)
    if len(rows) <= NAMED:
        for row in rows:
            plot.beside(place(row[along], x), row["observed"], row["model"])
    used = {row["verdict"] for row in rows}
    keys = [Key(name=v, tone="s0", kind="mark", shape=shape) for v, shape in SHAPES.items() if v in used]
    if limit is not None:
        keys.append(Key(name=f"limit, {SYMBOLS[comparator]} {number(limit)}", tone="limit", kind="dash"))
    desc = f"{len(rows)} models, from {number(rows[0]['observed'])} at the first to {number(rows[-1]['observed'])}."
    return Figure(
        id=f"family-{claim}",
        caption=f"{claim}: {rows[0]['quantity']}, with its 90 % interval and the limit that was stated beforehand.",
        panels=(plot.panel(f"{claim} against {along}", desc),),
        keys=tuple(keys),
        tables=(_numbers(claim, along, rows),),
    )


def _numbers(claim: str, along: str, rows: Sequence[Mapping[str, Any]]) -> Numbers:
    return Numbers(
        columns=tuple(Column(name=name) for name in ("model", along, claim, "from", "to", "verdict")),
        rows=tuple(
            (row["model"], *(number(row[key]) for key in (along, "observed", "low", "high")), row["verdict"])
            for row in rows
        ),
        caption=f"{claim} over {len(rows)} models",
    )


WIDE = 50.0  # last step over the first after 0: beyond, steps are drawn on a log axis


def axis_of(values: Sequence[int], label: str) -> Axis:
    """A log axis of parameters, and of steps that go far, on which step 0 stands at half of the first after it."""
    positive = [value for value in values if value > 0]
    if label == "parameters" or (positive and max(positive) > WIDE * min(positive)):
        return axes.logarithmic([*positive, min(positive) / 2] if 0 in values else positive, label=label)
    return axes.linear(values, label=label, count=4)


def place(value: int, axis: Axis) -> float:
    """Where a value of `axis_of` is drawn."""
    return axis.low if axis.kind == "log" and value == 0 else value
