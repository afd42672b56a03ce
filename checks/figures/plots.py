"""Line charts, scatter plots and histograms on a pair of axes, as the geometry of a `Panel`.

A missing value leaves a gap, and what lies outside an axis is not drawn; bands and limits are cut
at the frame. A direct label without a place is named in the panel's `unplaced`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from checks.figures.axes import Axis
from checks.figures.geometry import (
    BOTTOM,
    CHARACTER,
    HALF,
    LINE,
    SIDE,
    TOP,
    Mark,
    Marks,
    Panel,
    Path,
    Shape,
    Text,
    Value,
)
from checks.figures.labels import extent, spread, thin
from checks.figures.paths import outline, polyline, rectangle, shapes, tidy


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A direct label and the point that it belongs to, the right end of a line."""

    x: float
    y: float
    text: str
    tone: str


@dataclass(slots=True, kw_only=True)
class Plot:
    """A pair of axes to which lines, points, bands and labels are added; `panel` returns the drawing."""

    x: Axis
    y: Axis
    width: float = HALF
    height: float = 178.0
    room: float = 0.0  # characters kept free at the right for direct labels
    aside: float = 0.0  # kept free right of the frame for a distribution along the vertical axis
    margin: float = 0.0  # least left margin, so that panels under each other share their horizontal axis
    areas: list[Path] = field(default_factory=list)
    lines: list[Path] = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)
    words: list[Text] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)  # labels without a place, each with its axis

    @property
    def frame(self) -> tuple[float, float, float, float]:
        widest = max((len(t.label) for t in self.y.ticks), default=1)
        left = max(self.margin, 10 + CHARACTER * widest)
        return left, TOP, self.width - SIDE - CHARACTER * self.room - self.aside, self.height - BOTTOM

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
            self.labels.append(Label(x=ends[-1][0], y=ends[-1][1], text=label, tone=tone))
        elif label:
            self.unplaced.append(f"“{label}”: no point of its line lies on {_named(self.x)} and {_named(self.y)}")

    def points(
        self, xs: Sequence[Value], ys: Sequence[Value], tone: str, *, shape: Shape = "dot", tips: Sequence[str] = ()
    ) -> None:
        """One mark a point; a missing value has none. Dots without tips are one path."""
        placed = [(self.point(x, y), tip) for x, y, tip in zip(xs, ys, tips or [""] * len(xs), strict=True)]
        marks = tuple(Mark(x=at[0], y=at[1], tip=tip) for at, tip in placed if at)
        if marks:
            at_once = shapes([(m.x, m.y) for m in marks], shape) if shape == "dot" and not tips else ""
            self.marks.append(Marks(shape=shape, tone=tone, marks=marks, at_once=at_once))

    def heads(
        self,
        layer: int,
        xs: Sequence[Value],
        ys: Sequence[Value],
        tone: str,
        *,
        shape: Shape,
        values: Sequence[str] = (),
        crowded: bool = False,
    ) -> None:
        """One mark a head of a layer, which a page can find by layer and head.

        Parameters
        ----------
        values : the numbers of each head, as a page writes them where the head is chosen.
        crowded : so many heads that none is pointed at; those of a layer are one path.
        """
        placed = [self.point(x, y) for x, y in zip(xs, ys, strict=True)]
        marks = tuple(at and Mark(x=at[0], y=at[1]) for at in placed)
        if any(marks):
            at_once = shapes([at for at in placed if at], shape) if crowded else ""
            self.marks.append(
                Marks(shape=shape, tone=tone, marks=marks, layer=layer, values="|".join(values), at_once=at_once)
            )

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
                self.areas.append(Path(d=outline(piece), tone=tone, tip=tip))
                piece = []

    def margin_null(self, values: Sequence[float], densities: Sequence[float], tone: str, tip: str) -> None:
        """A density along the vertical axis, drawn in the margin that `aside` keeps free."""
        _, _, right, _ = self.frame
        start, unit = right + 3, (self.aside - 4) / max(densities)
        ups = [self._place(1, self.y.clamp(value))[1] for value in values]
        piece = [((start, up), (tidy(start + unit * d), up)) for up, d in zip(ups, densities, strict=True)]
        self.areas.append(Path(d=outline(piece), tone=tone, tip=tip))

    def beside(self, x: Value, y: Value, label: str) -> None:
        """A label just right of a data point, or left of it where the panel ends before the label does."""
        at = self.point(x, y)
        if at is None:
            self.unplaced.append(f"“{label}”: ({x}, {y}) is outside {_named(self.x)} and {_named(self.y)}")
            return
        word = Text(x=at[0] + 8, y=at[1] - 5, text=label)
        if extent(word)[1] > self.width:
            word = Text(x=at[0] - 8, y=at[1] - 5, text=label, anchor="end")
        self.words.append(word)

    def level(self, value: float, tone: str, *, label: str = "", dash: bool = True) -> None:
        """A horizontal rule at a value of the vertical axis, if it lies on it."""
        up = self.y.at(value)
        if up is None:
            if label:
                self.unplaced.append(f"“{label}”: {value} is outside {_named(self.y)}")
            return
        (left, at), (right, _) = self._place(0, up), self._place(1, up)
        self.lines.append(Path(d=f"M{left} {at}H{right}", tone=f"{tone} dash" if dash else tone))
        if label:
            self.labels.append(Label(x=right, y=at, text=label, tone=tone))

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

    def histogram(self, counts: Sequence[int], tone: str, *, unit: str = "") -> None:
        """Bars for numbers counted in equally wide bins of [0, 1]; an empty bin has none."""
        bins = len(counts)
        for i, count in enumerate(counts):
            if count:
                low, high = i / bins, (i + 1) / bins
                self.bar(low, high, 0, count, tone, f"{low:.2f} to {high:.2f}: {count}{unit}")

    def panel(self, title: str, desc: str, *, below: tuple[Panel, ...] = ()) -> Panel:
        """What has been added so far as one drawing, with ticks, axis names and direct labels."""
        left, _, right, bottom = self.frame
        x_ticks = [
            Text(x=self._place(self.x.at(t.value), 0)[0], y=bottom + 15, text=t.label, anchor="middle")
            for t in self.x.ticks
        ]
        y_ticks = [
            Text(x=left - 6, y=self._place(0, self.y.at(t.value))[1] + 4, text=t.label, anchor="end")
            for t in self.y.ticks
        ]
        grid = "".join(f"M{tidy(left)} {tidy(t.y - 4)}H{tidy(right)}" for t in y_ticks)
        words = list(self.words)
        words.append(Text(x=right, y=bottom + 31, text=self.x.label, anchor="end", tone="axis"))
        labels, leaders, unplaced = self._direct_labels()
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
            words=tuple(_rounded([*words, *labels])),
            areas=tuple(self.areas),
            lines=(*self.lines, *leaders),
            marks=tuple(self.marks),
            below=below,
            layers=self._layers(),
            unplaced=(*self.unplaced, *unplaced),
        )

    def _layers(self) -> tuple[float, float] | None:
        """Where layer 0 lies and how far the next one is, where layers are the horizontal axis."""
        if self.x.label != "layer":
            return None
        left, _, right, _ = self.frame
        step = (right - left) / (self.x.high - self.x.low)
        return round(left - self.x.low * step, 2), round(step, 3)

    def _direct_labels(self) -> tuple[list[Text], list[Path], list[str]]:
        """Labels right of the frame, hairlines from each to its line where that ends early, and labels without room."""
        _, top, right, bottom = self.frame
        edge = right + self.aside  # where direct labels begin
        heights = spread([label.y for label in self.labels], LINE, top + 4, bottom)
        words, leaders, unplaced = [], [], []
        for y, label in zip(heights, self.labels, strict=True):
            word = Text(x=edge + 7, y=y + 4, text=label.text)
            words.append(word)
            if label.x + 5 < edge + 4:
                d = f"M{label.x + 5:.1f} {label.y:.1f}L{edge + 4:.1f} {y:.1f}"
                leaders.append(Path(d=d, tone=f"{label.tone} leader"))
            if extent(word)[1] > self.width:
                unplaced.append(f"“{label.text}”: wider than the room right of {_named(self.y)}")
            if not top <= y <= bottom + 1e-9:
                unplaced.append(f"“{label.text}”: no height is left beside {_named(self.y)}")
        return words, leaders, unplaced


def binned(fractions: Iterable[float], bins: int) -> list[int]:
    """How many of some numbers in [0, 1] fall into each of equally wide bins; 1 falls into the last.

    >>> binned([0.0, 0.5, 0.6, 1.0], 2)
    [1, 3]
    """
    counts = [0] * bins
    for value in fractions:
        counts[min(bins - 1, int(value * bins))] += 1
    return counts


def _named(axis: Axis) -> str:
    return f"“{axis.label}” ({axis.low:g} to {axis.high:g})"


def _rounded(words: Iterable[Text]) -> list[Text]:
    return [Text(x=round(w.x, 1), y=round(w.y, 1), text=w.text, anchor=w.anchor, tone=w.tone) for w in words]
