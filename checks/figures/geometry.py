"""Parts of a figure: paths, marks and words at coordinates, and the table behind them.

Plain geometry that a template writes out as inline SVG without computing anything. Tones are names
of CSS classes: `s0…s7` series, `q0…q15` a sequential scale.
"""

from dataclasses import dataclass
from typing import Literal

Value = float | None
Anchor = Literal["start", "middle", "end"]
Shape = Literal["circle", "square", "diamond", "triangle", "cross", "ring", "dot"]
SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "triangle", "cross", "ring", "dot")

HALF = THIRD = 288.0  # width of a panel: all of a narrow window, in whose units words of 12 px are set
QUARTER = 158.0  # of a small one, two beside each other there
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
    """A point of a chart."""

    x: float
    y: float
    tip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Marks of one shape and tone, which are written once for all of them."""

    shape: Shape
    tone: str
    marks: tuple[Mark | None, ...]  # of a layer one for each head, None for one without a number
    layer: int | None = None  # that its heads belong to
    values: str = ""  # the numbers of each head, between bars
    at_once: str = ""  # all of them as one path, for dots that nobody points at


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """All cells of one class as one path of horizontal strokes, as thick as a row and as long as cells in a run."""

    tone: str
    d: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """All cells of a heatmap, in units of a column's width and a row's height from the middle of the first row."""

    left: float
    middle: float
    width: float
    height: float
    dashes: tuple[float, float]  # of a cell's width: what is coloured, and the gap to the next
    thick: float  # of a cell's height, what is coloured
    classes: tuple[Cells, ...]
    values: str = ""  # of every cell, rows from the top between semicolons; "" where they are too many


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """A vertical axis of layers or heads: where the first lies, and how far the next is."""

    name: str
    first: float
    step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A word at its baseline."""

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
    cells: Lattice | None = None
    lines: tuple[Path, ...] = ()
    marks: tuple[Marks, ...] = ()
    keys: tuple[Path, ...] = ()  # swatches of a legend
    legend: tuple["Key", ...] = ()
    below: tuple["Panel", ...] = ()  # drawn under this one, on the same horizontal axis
    layers: tuple[float, float] | None = None  # of a horizontal axis of layers: where layer 0 lies, and the step
    down: Down | None = None
    unplaced: tuple[str, ...] = ()  # direct labels that have no place, each with its axis and the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Name of a table's column, and the unit of its numbers."""

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
class Row:
    """One track of aligned rows, drawn."""

    name: str
    group: str
    family: str
    desc: str
    range: str  # "0.04 to 0.12"
    low: float  # the vertical domain, from bottom to top
    high: float
    log: bool
    paired: bool
    areas: tuple[Path, ...]
    lines: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows on one axis of layers."""

    axis: str
    count: int
    first: float  # middle of layer 0, of 1000
    step: float  # to the next layer
    ticks: tuple[tuple[float, str], ...]  # place in percent of the width, label
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Panels that share a caption, a legend and a table."""

    id: str
    caption: str
    panels: tuple[Panel, ...] = ()
    rows: Rows | None = None
    keys: tuple[Key, ...] = ()
    tables: tuple[Table, ...] = ()
    size: Literal["quarter", "third", "half"] = "half"

    @property
    def solo(self) -> bool:
        """Whether there is room for the caption beside the only panel."""
        return len(self.panels) == 1 and self.size == "half"
