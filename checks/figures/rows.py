"""Aligned rows: one small track a row on a shared axis of layers, with its chance level and its range.

A row is drawn in a box of WIDTH × HEIGHT units that a page stretches to the room there is; strokes keep their width.
Every row has its own vertical scale unless the rows share a domain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from checks.figures.axes import fixed, round_step
from checks.figures.geometry import Path, Row, Rows, Value
from checks.figures.numbers import number
from checks.figures.paths import bends, outline, polyline, spots

WIDTH, HEIGHT = 1000.0, 40.0
INSET = 3.0  # of a track from the upper and lower end of its box
TICKS = 6  # about this many layers are numbered


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One number of every layer, or of every pair of adjacent layers."""

    name: str
    values: Sequence[Value]
    group: str = ""  # a word before the first row of several
    family: str = ""  # of weights, that rows of several figures can be chosen by
    paired: bool = False  # a value for each pair of layers, drawn between them
    chance: Sequence[Value] | float | None = None  # of the same number, drawn dashed
    band: tuple[Sequence[Value], Sequence[Value]] | None = None  # where chance lies
    other: Sequence[Value] | None = None  # a second track on the same scale, drawn dashed
    log: bool = False


def aligned(
    tracks: Sequence[Track], count: int, *, axis: str = "layer", shared: bool = False, tone: str = "s0"
) -> Rows:
    """Draw tracks over `count` layers.

    Parameters
    ----------
    shared : one vertical domain for all rows, so that they compare.
    """
    together = [v for track in tracks for v in _shown(track)] if shared else None
    rows = []
    for track, before in zip(tracks, ["", *(t.group for t in tracks)], strict=False):
        rows.append(_row(track, count, together, tone, named=track.group != before))
    step = max(1, round(round_step(count / TICKS)))
    ticks = tuple((round(100 * (n + 0.5) / count, 2), str(n)) for n in range(0, count, step))
    pitch = WIDTH / count
    return Rows(
        axis=axis,
        count=count,
        first=round(pitch / 2, 2),
        step=round(pitch, 3),
        ticks=ticks,
        rows=tuple(rows),
    )


def _row(track: Track, count: int, together: Sequence[Value] | None, tone: str, *, named: bool) -> Row:
    low, high = _domain(together if together is not None else _shown(track), log=track.log)

    def place(i: int, value: Value) -> tuple[float, float] | None:
        if value is None or not math.isfinite(value) or (track.log and value <= 0):
            return None
        up = _fraction(min(high, max(low, value)), low, high, log=track.log)
        across = WIDTH * (i + (1.0 if track.paired else 0.5)) / count
        return float(round(across)), INSET + (1 - up) * (HEIGHT - 2 * INSET)

    def line(values: Sequence[Value]) -> str:
        return polyline([place(i, v) for i, v in enumerate(values)])

    areas, lines = [], []
    if track.band:
        pairs = [(place(i, a), place(i, b)) for i, (a, b) in enumerate(zip(*track.band, strict=True))]
        known = [(a, b) for a, b in pairs if a and b]
        if len(known) > 1:
            areas.append(Path(d=outline(known), tone="chance"))
    chance = [track.chance] * len(track.values) if isinstance(track.chance, (int, float)) else track.chance
    levels = [at for i, v in enumerate(chance or ()) if (at := place(i, v))]
    if levels:
        lines.append(Path(d=polyline(bends(levels)), tone="s7 dash"))
    if track.other is not None and (d := line(track.other)):
        lines.append(Path(d=d, tone="s1 dash"))
    if d := line(track.values):
        lines.append(Path(d=d, tone=tone))
        known = [at for i, v in enumerate(track.values) if (at := place(i, v))]
        if count <= 60:
            lines.append(Path(d=spots(known), tone=f"{tone} spots"))
    return Row(
        name=track.name,
        group=track.group if named else "",
        family=track.family,
        desc=_finding(track),
        range=_range(track.values),
        low=low,
        high=high,
        log=track.log,
        paired=track.paired,
        areas=tuple(areas),
        lines=tuple(lines),
    )


def _shown(track: Track) -> list[Value]:
    """Every number that a row must have room for."""
    chance = track.chance
    single = isinstance(chance, (int, float))
    return [
        *track.values,
        *([chance] if single else chance or ()),
        *(track.other or ()),
        *(v for side in track.band or () for v in side),
    ]


def _domain(values: Sequence[Value], *, log: bool) -> tuple[float, float]:
    known = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 2.0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        return (low / 2, high * 2) if log else (low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5))
    return low, high


def _fraction(value: float, low: float, high: float, *, log: bool) -> float:
    if log:
        low, high, value = math.log10(low), math.log10(high), math.log10(value)
    return fixed(low, high, label="").clamp(value)


def _range(values: Sequence[Value]) -> str:
    """From the least to the greatest, with two digits or as many as tell them apart."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return "no number"
    low, high = min(known), max(known)
    digits = next((d for d in range(2, 8) if number(low, d) != number(high, d)), 2)
    return f"{number(low, digits)} to {number(high, digits)}"


def _finding(track: Track) -> str:
    """The track in words: its range and the layers where it is least and greatest."""
    known = [(v, i) for i, v in enumerate(track.values) if v is not None and math.isfinite(v)]
    if not known:
        return f"{track.name}: no number."
    (low, first), (high, last) = min(known), max(known)
    what = "layers {0} and {1}" if track.paired else "layer {0}"
    at = [what.format(i, i + 1) for i in (first, last)]
    level = f"; chance {number(track.chance)}" if isinstance(track.chance, (int, float)) else ""
    return f"{track.name}: from {number(low)} in {at[0]} to {number(high)} in {at[1]}{level}."
