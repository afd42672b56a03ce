"""Heatmaps: a matrix as coloured cells in a few classes, with a legend that carries the numbers.

Classes, not a continuous ramp: nine to sixteen steps of even lightness can be told apart and read
off. A matrix of more than CELLS cells is averaged over blocks of rows and columns, and says so.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from checks.figures.axes import round_step
from checks.figures.geometry import CHARACTER, HALF, TOP, Cells, Down, Lattice, Panel, Path, Text, Value
from checks.figures.labels import thin
from checks.figures.paths import rectangle

CELLS = 4000  # most cells in one panel
VALUES = 1500  # most cells whose numbers are kept beside them, some five bytes each; smaller ones are hard to point at
SEQUENTIAL = 16  # tones in the style sheet
LARGEST_CELL = 22.0
TALLEST = 250.0  # of all rows together
LEGEND = 46.0  # from the lowest row to the colour legend
SWATCH = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Rising edges and one tone for each interval between them."""

    edges: tuple[float, ...]
    tones: tuple[str, ...]

    def tone(self, value: float) -> str:
        """The class that holds the value; what lies outside goes to the nearest one."""
        for edge, tone in zip(self.edges[1:], self.tones, strict=True):
            if value < edge:
                return tone
        return self.tones[-1]


def sequential(low: float, high: float) -> Classes:
    """Nine to sixteen classes between round numbers, pale to strong."""
    edges = _edges(low, high)
    count = len(edges) - 1
    return Classes(edges=edges, tones=tuple(f"q{round(i * (SEQUENTIAL - 1) / (count - 1))}" for i in range(count)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """What a heatmap shows: one cell a value, rows from the top."""

    values: Sequence[Sequence[Value]]  # (row, column); None leaves the cell empty
    rows: str  # name of the vertical axis, such as "layer"
    columns: str  # of the horizontal one, such as "head"
    lower: bool = False  # only below the diagonal; the rest of a symmetric matrix says nothing new
    borders: Sequence[float] = ()  # rows and columns before which a rule is drawn (phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the cells lie: the frame in pixels, the size of a cell, and the rows and columns that it averages."""

    left: float
    top: float
    right: float
    bottom: float
    width: float  # of a cell
    height: float
    row_step: int
    column_step: int

    def across(self, column: float) -> float:
        """Left edge of a column of the matrix."""
        return self.left + self.width * column / self.column_step

    def down(self, row: float) -> float:
        """Upper edge of a row of the matrix."""
        return self.top + self.height * row / self.row_step


def heatmap(matrix: Matrix, classes: Classes, *, title: str, measure: str, desc: str) -> Panel:
    """Cells row by row from the top, with a legend of the classes beneath.

    Parameters
    ----------
    measure : what the cells show, with its unit.
    desc : the finding in words.
    """
    shown = _below_diagonal(matrix.values) if matrix.lower else matrix.values
    values, steps = shrink(shown)
    grid = _grid(len(values), len(values[0]), steps, square=matrix.rows == matrix.columns)
    end = max(grid.right, grid.left + 70)
    axis = Text(x=round(end, 1), y=round(grid.bottom + 32, 1), text=matrix.columns, anchor="end", tone="axis")
    down = Text(x=2.0, y=round(grid.bottom + 15, 1), text=matrix.rows, tone="axis")
    right = HALF - 24
    keys, key_words = _legend(classes, grid.left, right, grid.bottom + LEGEND)
    rules = _rules(matrix, grid)
    blocks = f", mean over blocks of {steps[0]} × {steps[1]}" if steps != (1, 1) else ""
    return Panel(
        width=HALF,
        height=round(grid.bottom + LEGEND + SWATCH + 20, 1),
        title=title,
        measure=f"{measure}{blocks}",
        desc=desc,
        frame=(round(grid.left, 1), grid.top, round(grid.right, 1), round(grid.bottom, 1)),
        x_ticks=tuple(
            Text(x=round(grid.across(n + 0.5), 1), y=round(grid.bottom + 15, 1), text=str(n), anchor="middle")
            for n in _cell_ticks(len(shown[0]), 24, grid.width / grid.column_step)
        ),
        y_ticks=tuple(
            Text(x=round(grid.left - 6, 1), y=round(grid.down(n + 0.5) + 4, 1), text=str(n), anchor="end")
            for n in _cell_ticks(len(shown), 15, grid.height / grid.row_step)
        ),
        words=(axis, down, *key_words),
        layers=_numbered(grid.across(0.5), grid.across(1.5)) if matrix.columns == "layer" else None,
        down=Down(name=matrix.rows, first=round(grid.down(0.5), 2), step=round(grid.down(1.5) - grid.down(0.5), 3)),
        cells=_lattice(values, classes, grid),
        lines=(Path(d=rules, tone="border"),) if rules else (),
        keys=keys,
    )


def _numbered(first: float, second: float) -> tuple[float, float]:
    """Where cell 0 lies and how far the next one is."""
    return round(first, 2), round(second - first, 3)


def _below_diagonal(values: Sequence[Sequence[Value]]) -> list[list[Value]]:
    return [[value if j < i else None for j, value in enumerate(row)] for i, row in enumerate(values)]


def _grid(rows: int, columns: int, steps: tuple[int, int], *, square: bool) -> Grid:
    """Cells as large as the panel allows, in whole pixels where there is room: sharp edges and short paths."""
    left = math.ceil(10 + CHARACTER * max(len(str(rows * steps[0])), 5))
    width = _whole(min(LARGEST_CELL, (HALF - left - 12) / columns))
    height = width
    if not square:  # a cell is never wider than tall, so that both axes can be read
        height = _whole(min(LARGEST_CELL, max(width, 60 / rows), TALLEST / rows))
        width = min(width, height)
    return Grid(
        left=left,
        top=TOP,
        right=left + width * columns,
        bottom=TOP + height * rows,
        width=width,
        height=height,
        row_step=steps[0],
        column_step=steps[1],
    )


def _lattice(values: Sequence[Sequence[Value]], classes: Classes, grid: Grid) -> Lattice:
    """The cells by class, and up to VALUES of them in numbers."""
    runs: dict[str, list[str]] = {tone: [] for tone in classes.tones}
    for i, row in enumerate(values):
        tones = [None if value is None or not math.isfinite(value) else classes.tone(value) for value in row]
        start = 0
        for tone, members in itertools.groupby(tones):
            count = len(list(members))
            if tone is not None:
                runs[tone].append(f"M{start} {i}h{count}")
            start += count
    gap = 1 if min(grid.width, grid.height) >= 6 else 0  # pixels between cells
    return Lattice(
        left=grid.left,
        middle=round(grid.top + grid.height / 2, 3),
        width=round(grid.width, 3),
        height=round(grid.height, 3),
        dashes=(round(1 - gap / grid.width, 3), round(gap / grid.width, 3)),
        thick=round(1 - gap / grid.height, 3),
        classes=tuple(Cells(tone=tone, d="".join(members)) for tone, members in runs.items() if members),
        values=_values(values) if sum(map(len, values)) <= VALUES else "",
    )


def _values(values: Sequence[Sequence[Value]]) -> str:
    """Rows between semicolons, numbers between spaces; a missing one is empty, and a row ends with its last number."""
    rows = (["" if v is None or not math.isfinite(v) else f"{v:.3g}" for v in row] for row in values)
    return ";".join(" ".join(row).rstrip() for row in rows).replace("-", "−")


def _rules(matrix: Matrix, grid: Grid) -> str:
    """Lines along the borders, across the drawn part of the matrix."""
    rules = ""
    for border in matrix.borders:
        across, down = grid.across(border), grid.down(border)
        end, start = (across, down) if matrix.lower else (grid.right, grid.top)
        rules += f"M{grid.left:.1f} {down:.1f}H{end:.1f}M{across:.1f} {start:.1f}V{grid.bottom:.1f}"
    return rules


def shrink(values: Sequence[Sequence[Value]]) -> tuple[list[list[Value]], tuple[int, int]]:
    """Means over blocks until at most CELLS are left; missing values are left out of a mean.

    Returns the smaller matrix and the rows and columns of a block.
    """
    row_step = column_step = 1
    height, width = len(values), len(values[0])
    while math.ceil(height / row_step) * math.ceil(width / column_step) > CELLS:
        if height / row_step >= width / column_step:
            row_step += 1
        else:
            column_step += 1
    if row_step * column_step == 1:
        return [list(row) for row in values], (1, 1)

    def mean(i: int, j: int) -> Value:
        block = [v for row in values[i : i + row_step] for v in row[j : j + column_step] if v is not None]
        return sum(block) / len(block) if block else None

    return [[mean(i, j) for j in range(0, width, column_step)] for i in range(0, height, row_step)], (
        row_step,
        column_step,
    )


def _whole(pitch: float) -> float:
    return math.floor(pitch) if pitch >= 6 else pitch


def _edges(low: float, high: float) -> tuple[float, ...]:
    """Ten or so round steps that cover [low, high]: multiples of 1, 2, 2.5 or 5 × 10^k."""
    if high - low <= 1e-12 * max(abs(high), abs(low), 1e-300):
        low, high = low - abs(low) / 2 - 0.05, high + abs(high) / 2 + 0.05
    raw = (high - low) / 12
    power = 10.0 ** math.floor(math.log10(raw))
    for multiple in (1, 2, 2.5, 5, 10, 20):
        step = multiple * power
        start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if stop - start <= 14:
            break
    while stop - start < 9:
        stop += 1
    return tuple(k * step for k in range(start, stop + 1))


def _cell_ticks(count: int, room: float, pitch: float) -> range:
    """Numbers of the cells that are labelled: a round step that leaves each label `room` pixels."""
    return range(0, count, max(1, round(round_step(room / pitch))))


def _legend(classes: Classes, left: float, right: float, top: float) -> tuple[tuple[Path, ...], tuple[Text, ...]]:
    count = len(classes.tones)
    edges = [round(left + (right - left) * i / count, 1) for i in range(count + 1)]
    keys = tuple(
        Path(d=rectangle(edges[i], round(top, 1), edges[i + 1], round(top + SWATCH, 1)), tone=tone)
        for i, tone in enumerate(classes.tones)
    )
    step = classes.edges[1] - classes.edges[0]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    decimals += round(step * 10**decimals, 6) != round(step * 10**decimals)  # a step of 2.5 needs one more
    words = [
        Text(x=x, y=round(top + SWATCH + 14, 1), text=f"{edge:.{decimals}f}".replace("-", "−"), anchor="middle")
        for x, edge in zip(edges, classes.edges, strict=True)
    ]
    return keys, tuple(thin(words))
