"""Charts with one row a name: stacked bars of shares, or dots with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from checks.figures.axes import Axis
from checks.figures.geometry import CHARACTER, HALF, Key, Mark, Marks, Panel, Path, Shape, Text, Value
from checks.figures.labels import thin
from checks.figures.numbers import number, percent
from checks.figures.paths import rectangle, tidy

ROW = 22.0  # height of a row
BAR = 14.0  # of a bar in it
TOP, BOTTOM = 6.0, 38.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """How one series of dots or shares is drawn."""

    name: str
    tone: str
    shape: Shape = "circle"


def stacked(
    shares: Mapping[str, Mapping[str, Value]],
    series: Mapping[str, Series],
    *,
    x: Axis,
    title: str,
    measure: str,
    desc: str,
    beside: Mapping[str, str],
    legend: tuple[Key, ...] = (),
    width: float = HALF,
) -> Panel:
    """Bars from 0 to the sum of a row's shares.

    Parameters
    ----------
    shares : row → series → share; None and 0 are not drawn.
    beside : row → word at its right end.
    """
    left, right = _margins(shares, beside.values(), width)
    areas, words = [], []
    for i, (row, parts) in enumerate(shares.items()):
        top, start = TOP + ROW * i + (ROW - BAR) / 2, 0.0
        for key, share in parts.items():
            if share:
                x0, x1 = (left + x.clamp(v) * (right - left) for v in (start, start + share))
                tip = f"{row}, {series[key].name}: {number(share)}"
                areas.append(
                    Path(
                        d=rectangle(round(x0, 1), round(top, 1), round(x1, 1), round(top + BAR, 1)),
                        tone=f"{series[key].tone} bar",
                        tip=tip,
                    )
                )
                start += share
        words.append(Text(x=round(right + 7, 1), y=round(top + BAR / 2 + 4, 1), text=beside[row]))
    return _panel(
        list(shares),
        x,
        left,
        right,
        width,
        title=title,
        measure=measure,
        desc=desc,
        areas=areas,
        words=words,
        legend=legend,
    )


def dots(
    values: Mapping[str, Mapping[str, tuple[Value, tuple[float, float] | None]]],
    series: Mapping[str, Series],
    *,
    x: Axis,
    title: str,
    measure: str,
    desc: str,
    width: float = HALF,
    levels: Sequence[float] = (),
) -> Panel:
    """A dot for each series in each row, with its interval as a line; series lie under each other in the row.

    Parameters
    ----------
    values : row → series → (value, interval).
    levels : values of the axis at which a thin vertical rule is drawn.
    """
    left, right = _margins(values, (), width)
    bottom = TOP + ROW * 1.4 * len(values)
    lines = [
        Path(d=f"M{left + at * (right - left):.1f} {TOP}V{bottom:.1f}", tone="zero")
        for at in (x.at(v) for v in levels)
        if at is not None
    ]
    marks: dict[str, list[Mark]] = {key: [] for key in series}
    for i, (row, parts) in enumerate(values.items()):
        for j, (key, (value, interval)) in enumerate(parts.items()):
            y = round(TOP + ROW * 1.4 * (i + (j + 1) / (len(parts) + 1)), 1)
            if interval:
                a, b = (round(left + x.clamp(v) * (right - left), 1) for v in interval)
                lines.append(Path(d=f"M{a:g} {y:g}H{b:g}", tone=series[key].tone))
            if (at := x.at(value)) is not None:
                between = f", 90 % interval {number(interval[0])} to {number(interval[1])}" if interval else ""
                tip = f"{row}, {series[key].name}: {number(value)}{between}"
                marks[key].append(Mark(x=tidy(left + at * (right - left)), y=y, tip=tip))
    groups = [
        Marks(shape=series[key].shape, tone=series[key].tone, marks=tuple(members))
        for key, members in marks.items()
        if members
    ]
    return _panel(
        list(values),
        x,
        left,
        right,
        width,
        title=title,
        measure=measure,
        desc=desc,
        lines=lines,
        marks=groups,
        pitch=ROW * 1.4,
    )


def share_words(parts: Mapping[str, Value], best: str, name: str) -> str:
    """A row's best form with its share: "linear 83 %"."""
    return f"{name} {percent(parts[best])}" if parts.get(best) is not None else name


def _margins(rows: Mapping[str, object], beside: Sequence[str], width: float) -> tuple[float, float]:
    left = 14 + CHARACTER * max(len(row) for row in rows)
    return round(left, 1), round(width - 14 - CHARACTER * max((len(word) for word in beside), default=0), 1)


def _panel(
    rows: Sequence[str],
    x: Axis,
    left: float,
    right: float,
    width: float,
    *,
    title: str,
    measure: str,
    desc: str,
    areas: Sequence[Path] = (),
    lines: Sequence[Path] = (),
    marks: Sequence[Marks] = (),
    words: Sequence[Text] = (),
    legend: tuple[Key, ...] = (),
    pitch: float = ROW,
) -> Panel:
    bottom = round(TOP + pitch * len(rows), 1)
    ticks = [(t, round(left + x.clamp(t.value) * (right - left), 1)) for t in x.ticks]
    return Panel(
        width=width,
        height=bottom + BOTTOM,
        title=title,
        measure=measure,
        desc=desc,
        frame=(left, TOP, right, bottom),
        x_ticks=tuple(thin([Text(x=at, y=bottom + 15, text=t.label, anchor="middle") for t, at in ticks])),
        y_ticks=tuple(
            Text(x=left - 7, y=round(TOP + pitch * (i + 0.5) + 4, 1), text=row, anchor="end")
            for i, row in enumerate(rows)
        ),
        grid="".join(f"M{at:g} {TOP:g}V{bottom:g}" for _, at in ticks),
        words=(Text(x=right, y=bottom + 32, text=x.label, anchor="end", tone="axis"), *words),
        areas=tuple(areas),
        lines=tuple(lines),
        marks=tuple(marks),
        legend=legend,
    )
