"""What does a figure look like, in numbers? From values to paths, marks and words at coordinates.

A `Plot` is filled with data and turned into a `Panel`: plain geometry that a template writes out
as inline SVG without computing anything. Coordinates are rounded to a tenth of a unit, so that the
same records make the same bytes. A missing value leaves a gap. Tones are names of CSS classes:
`s0…s7` series, `q0…q15` a sequential scale.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from checks.axes import Axis
from checks.numbers import number

Value = float | None
Anchor = Literal["start", "middle", "end"]
Shape = Literal["circle", "square", "diamond", "triangle", "cross", "ring", "dot"]
SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "triangle", "cross", "ring", "dot")

QUARTER, THIRD, HALF = 219.0, 301.0, 466.0  # widths of a panel: four, three or two beside each other on a wide page
CHARACTER = 6.9  # mean advance of a 12 px character of the system fonts, on the generous side
LINE = 14.0  # least distance between two lines of labels
TOP, BOTTOM, SIDE = 8.0, 40.0, 12.0  # margins; the left one follows the tick labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A line, an area or a bar."""

    d: str
    tone: str
    tip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    x: float
    y: float
    tip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Marks of one shape and tone, which are written once for all of them."""

    shape: Shape
    tone: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    d: str
    tip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Cells of one class; each is a horizontal stroke as thick as a row, the shortest path for thousands."""

    tone: str
    thickness: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    tone: str = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One SVG: where everything goes. Lists are in drawing order, back to front."""

    width: float
    height: float
    title: str  # above the panel, and the name that a screen reader speaks
    measure: str  # what the vertical axis shows, with its unit
    desc: str  # the finding in words
    frame: tuple[float, float, float, float]  # left, top, right, bottom of the data area
    x_ticks: tuple[Text, ...] = ()
    y_ticks: tuple[Text, ...] = ()
    grid: str = ""  # one path of hairlines
    words: tuple[Text, ...] = ()  # axis names and direct labels
    areas: tuple[Path, ...] = ()
    cells: tuple[Cells, ...] = ()
    lines: tuple[Path, ...] = ()
    marks: tuple[Marks, ...] = ()
    keys: tuple[Path, ...] = ()  # swatches of a legend
    legend: tuple["Key", ...] = ()
    below: tuple["Panel", ...] = ()  # drawn under this one, on the same horizontal axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    name: str
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Numbers behind a figure; the first column names the row."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]  # as written
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry of a legend: what a tone, a dash and a mark stand for."""

    name: str
    tone: str
    kind: Literal["line", "dash", "area", "mark"] = "line"
    shape: Shape = "circle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Panels that share a caption, a legend and a table."""

    id: str
    caption: str
    panels: tuple[Panel, ...]
    keys: tuple[Key, ...] = ()
    tables: tuple[Table, ...] = ()
    size: Literal["quarter", "third", "half"] = "half"

    @property
    def solo(self) -> bool:
        """Whether there is room for the caption beside the only panel."""
        return len(self.panels) == 1 and self.size == "half"


@dataclass(slots=True, kw_only=True)
class Plot:
    """A pair of axes being filled."""

    x: Axis
    y: Axis
    width: float = HALF
    height: float = 250.0
    room: float = 0.0  # characters kept free at the right for direct labels
    margin: float = 0.0  # least left margin, so that panels under each other share their horizontal axis
    areas: list[Path] = field(default_factory=list)
    lines: list[Path] = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)
    words: list[Text] = field(default_factory=list)
    labels: list[tuple[float, float, str, str]] = field(default_factory=list)  # (x, y, text, tone) of a line's end

    @property
    def frame(self) -> tuple[float, float, float, float]:
        widest = max((len(t.label) for t in self.y.ticks), default=1)
        name = CHARACTER * (len(self.x.label) + 1) if self._terse else 0.0
        left = max(self.margin, name, 10 + CHARACTER * widest)
        bottom = BOTTOM - LINE * self._terse
        return left, TOP, self.width - SIDE - CHARACTER * self.room, self.height - bottom

    @property
    def _terse(self) -> bool:
        """In small panels the axis' name stands before its first tick instead of on a line of its own."""
        return self.width <= THIRD and " " not in self.x.label

    def point(self, x: Value, y: Value) -> tuple[float, float] | None:
        """Coordinates of a data point; None where either value is missing or outside its axis."""
        across, up = self.x.at(x), self.y.at(y)
        return None if across is None or up is None else self._place(across, up)

    def _place(self, across: float, up: float) -> tuple[float, float]:
        left, top, right, bottom = self.frame
        return tidy(left + across * (right - left)), tidy(bottom - up * (bottom - top))

    def line(self, xs: Sequence[Value], ys: Sequence[Value], tone: str, *, dash: bool = False, label: str = "") -> None:
        """A polyline with a gap wherever a value is missing; the label goes beside its last point."""
        points = [self.point(x, y) for x, y in zip(xs, ys, strict=True)]
        if d := polyline(points):
            self.lines.append(Path(d=d, tone=f"{tone} dash" if dash else tone))
        ends = [p for p in points if p]
        if label and ends:
            self.labels.append((*ends[-1], label, tone))

    def points(
        self, xs: Sequence[Value], ys: Sequence[Value], tone: str, *, shape: Shape = "circle", tips: Sequence[str]
    ) -> None:
        """One mark a point; a missing value has none."""
        placed = [(self.point(x, y), tip) for x, y, tip in zip(xs, ys, tips, strict=True)]
        marks = tuple(Mark(x=at[0], y=at[1], tip=tip) for at, tip in placed if at)
        if marks:
            self.marks.append(Marks(shape=shape, tone=tone, marks=marks))

    def specks(self, xs: Sequence[Value], ys: Sequence[Value], tone: str) -> None:
        """Small dots in one path, without tooltips: for small panels whose numbers stand in a table."""
        points = [at for x, y in zip(xs, ys, strict=True) if (at := self.point(x, y))]
        if points:
            self.lines.append(Path(d="".join(f"M{x:g} {y:g}h0" for x, y in points), tone=f"{tone} specks"))

    def band(
        self, xs: Sequence[Value], lows: Sequence[Value], highs: Sequence[Value], tone: str, *, tip: str = ""
    ) -> None:
        """The area between two tracks, in pieces where either is missing; cut at the frame."""
        piece: list[tuple[tuple[float, float], tuple[float, float]]] = []
        for x, low, high in [*zip(xs, lows, highs, strict=True), (None, None, None)]:
            across = self.x.at(x)
            if across is not None and low is not None and high is not None:
                piece.append((self._place(across, self.y.clamp(low)), self._place(across, self.y.clamp(high))))
            elif piece:
                self.areas.append(Path(d=_outline(piece), tone=tone, tip=tip))
                piece = []

    def beside(self, x: Value, y: Value, label: str) -> None:
        """A label just right of a data point."""
        if at := self.point(x, y):
            self.words.append(Text(x=at[0] + 8, y=at[1] - 5, text=label))

    def level(self, value: float, tone: str, *, label: str = "", dash: bool = True) -> None:
        """A horizontal rule at a value of the vertical axis, if it lies on it."""
        up = self.y.at(value)
        if up is None:
            return
        (left, at), (right, _) = self._place(0, up), self._place(1, up)
        self.lines.append(Path(d=f"M{left} {at}H{right}", tone=f"{tone} dash" if dash else tone))
        if label:
            self.labels.append((right, at, label, tone))

    def border(self, value: float, tone: str) -> None:
        """A vertical rule at a value of the horizontal axis, if it lies on it."""
        if (across := self.x.at(value)) is not None:
            (at, low), (_, high) = self._place(across, 0), self._place(across, 1)
            self.lines.append(Path(d=f"M{at} {low}V{high}", tone=tone))

    def bar(self, low_x: float, high_x: float, low_y: float, high_y: float, tone: str, tip: str) -> None:
        """A rectangle between data values, cut at the frame."""
        x0, y0 = self._place(self.x.clamp(low_x), self.y.clamp(low_y))
        x1, y1 = self._place(self.x.clamp(high_x), self.y.clamp(high_y))
        self.areas.append(Path(d=rectangle(x0, y1, x1, y0), tone=tone, tip=tip))

    def panel(self, title: str, desc: str, *, below: tuple[Panel, ...] = ()) -> Panel:
        left, top, right, bottom = self.frame
        x_ticks = [
            Text(x=self._place(self.x.at(t.value), 0)[0], y=bottom + 15, text=t.label, anchor="middle")
            for t in self.x.ticks
        ]
        y_ticks = [
            Text(x=left - 6, y=self._place(0, self.y.at(t.value))[1] + 4, text=t.label, anchor="end")
            for t in self.y.ticks
        ]
        grid = "".join(f"M{left:.1f} {t.y - 4:.1f}H{right:.1f}" for t in y_ticks)
        words = list(self.words)
        if self._terse and x_ticks:
            first = x_ticks[0]
            x_ticks[0] = Text(x=first.x + CHARACTER / 2, y=first.y, text=f"{self.x.label} {first.text}", anchor="end")
        else:
            words.append(Text(x=right, y=bottom + 33, text=self.x.label, anchor="end", tone="axis"))
        heights = spread([y for _, y, _, _ in self.labels], LINE, top + 4, bottom)
        words += [
            Text(x=right + 7, y=y + 4, text=text) for y, (_, _, text, _) in zip(heights, self.labels, strict=True)
        ]
        leaders = [
            Path(d=f"M{x + 5:.1f} {end:.1f}L{right + 4:.1f} {y:.1f}", tone=f"{tone} leader")
            for y, (x, end, _, tone) in zip(heights, self.labels, strict=True)
            if x + 5 < right + 4
        ]
        return Panel(
            width=self.width,
            height=self.height,
            title=title,
            measure=self.y.label,
            desc=desc,
            frame=tuple(round(v, 1) for v in self.frame),
            x_ticks=tuple(thin(_rounded(x_ticks))),
            y_ticks=tuple(y_ticks),
            grid=grid,
            words=tuple(_rounded(words)),
            areas=tuple(self.areas),
            lines=(*self.lines, *leaders),
            marks=tuple(self.marks),
            below=below,
        )


def tidy(value: float) -> float:
    """A coordinate to a tenth of a unit, as an integer where it is one: shorter, and nobody sees the rest.

    >>> tidy(3.04), tidy(3.06)
    (3, 3.1)
    """
    rounded = round(value, 1)
    return int(rounded) if rounded == int(rounded) else rounded


def polyline(points: Iterable[tuple[float, float] | None]) -> str:
    """A path through the points; None lifts the pen, and a lone point becomes a dot.

    >>> polyline([(0, 0), (1, 2), None, (3, 4)])
    'M0 0L1 2M3 4h0'
    """
    d, run = [], []
    for point in [*points, None]:
        if point:
            run.append(point)
        elif run:
            d.append("M" + "L".join(f"{x:g} {y:g}" for x, y in run) + ("h0" if len(run) == 1 else ""))
            run = []
    return "".join(d)


def rectangle(left: float, top: float, right: float, bottom: float) -> str:
    """A closed rectangle; left ≤ right, top ≤ bottom.

    >>> rectangle(1, 2, 4, 6)
    'M1 2h3v4h-3z'
    """
    width, height = round(right - left, 1), round(bottom - top, 1)
    return f"M{left:g} {top:g}h{width:g}v{height:g}h-{width:g}z"


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart to at least `gap`, keeping their order, inside [low, high] where they fit.

    Pools of labels that touch are centred on the mean of where they wanted to be.

    >>> spread([10, 11, 50], 10, 0, 100)
    [5.5, 15.5, 50]
    """

    def inside(centre: float, count: int) -> float:
        half = gap * (count - 1) / 2
        return min(max(centre, low + half), max(high - half, low + half))

    pools: list[tuple[list[int], float]] = []  # members, centre
    for i in sorted(range(len(positions)), key=lambda i: positions[i]):
        members, centre = [i], inside(positions[i], 1)
        while pools and centre - pools[-1][1] < gap * (len(members) + len(pools[-1][0])) / 2 - 1e-9:
            members = pools.pop()[0] + members
            centre = inside(sum(positions[j] for j in members) / len(members), len(members))
        pools.append((members, centre))
    placed = [0.0] * len(positions)
    for members, centre in pools:
        for rank, i in enumerate(members):
            placed[i] = centre + gap * (rank - (len(members) - 1) / 2) if len(members) > 1 else centre
    return placed


def thin(ticks: Sequence[Text]) -> list[Text]:
    """Drop tick labels that would touch the one before."""
    kept: list[Text] = []
    for tick in ticks:
        if not kept or _ends(tick)[0] > _ends(kept[-1])[1] + 7:
            kept.append(tick)
    return kept


def _ends(text: Text) -> tuple[float, float]:
    """Estimated horizontal extent of a word."""
    width = CHARACTER * len(text.text)
    left = text.x - {"start": 0.0, "middle": width / 2, "end": width}[text.anchor]
    return left, left + width


def tips(names: Iterable[str], values: Iterable[Value], unit: str = "") -> list[str]:
    """Tooltips "name: value unit" with four digits."""
    return [f"{name}: {number(value, 4)}{unit}" for name, value in zip(names, values, strict=True)]


def _outline(piece: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> str:
    there = "L".join(f"{x:g} {y:g}" for _, (x, y) in piece)
    back = "L".join(f"{x:g} {y:g}" for (x, y), _ in reversed(piece))
    return f"M{there}L{back}z"


def _rounded(words: Iterable[Text]) -> list[Text]:
    return [Text(x=round(w.x, 1), y=round(w.y, 1), text=w.text, anchor=w.anchor, tone=w.tone) for w in words]
