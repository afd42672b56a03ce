"""A matrix as coloured cells in a few classes, with a legend that carries the numbers.

Classes, not a continuous ramp: nine to sixteen steps of even lightness can be told apart and read
off. A matrix of more than CELLS cells is averaged over blocks of rows and columns, and says so.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from checks.figures.geometry import CHARACTER, HALF, Cell, Cells, Lattice, Panel, Path, Text, Value
from checks.figures.labels import thin
from checks.figures.paths import rectangle

CELLS = 4000  # most cells in one panel
TIPS = 1000  # most cells with a tooltip each: fifty bytes a cell, and smaller ones are hard to point at
ASIDE = 400  # the same for a matrix that is shown for comparison, beside the one that counts
SEQUENTIAL = 16  # tones in the style sheet
LARGEST_CELL = 30.0
LEGEND = 46.0  # height of the colour legend
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


def heatmap(
    values: Sequence[Sequence[Value]],
    classes: Classes,
    *,
    title: str,
    measure: str,
    desc: str,
    rows: str,
    columns: str,
    tip: Callable[[str, str, str], str],
    width: float = HALF,
    borders: Sequence[float] = (),
    lower: bool = False,
    first: tuple[int, int] = (0, 0),
    aside: bool = False,
) -> Panel:
    """Cells row by row from the top.

    Parameters
    ----------
    values : (row, column); None leaves the cell empty.
    rows, columns : names of the axes, such as "layer" and "head".
    tip : (row name, column name, number) → tooltip.
    borders : rows and columns before which a rule is drawn (phases).
    lower : draw the part below the diagonal only; the rest of a symmetric matrix says nothing new.
    first : number of the first row and column.
    aside : shown for comparison, so the first to lose its tooltips.
    """
    if lower:
        values = [[value if j < i else None for j, value in enumerate(row)] for i, row in enumerate(values)]
    rows_given, columns_given = len(values), len(values[0])
    values, (row_step, column_step) = shrink(values)
    height_cells, width_cells = len(values), len(values[0])
    left = math.ceil(14 + CHARACTER * max(len(str(height_cells * row_step)), 2))
    # Whole pixels where there is room: sharp edges and short paths.
    cell_w = _whole(min(LARGEST_CELL, (width - left - 12) / width_cells))
    cell_h = (
        cell_w
        if rows == columns
        else _whole(min(LARGEST_CELL * 0.8, max(cell_w * 0.8, 140 / height_cells), 420 / height_cells))
    )
    top, right, bottom = 8.0, left + cell_w * width_cells, 8.0 + cell_h * height_cells
    gap = 1 if min(cell_w, cell_h) >= 6 else 0  # between cells
    row_names = [_block(i, row_step, first[0]) for i in range(height_cells)]
    column_names = [_block(j, column_step, first[1]) for j in range(width_cells)]
    cells: dict[str, list[Cell]] = {tone: [] for tone in classes.tones}
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if value is not None and math.isfinite(value):
                said = tip(row_names[i], column_names[j], f"{value:.3g}".replace("-", "−"))
                cells[classes.tone(value)].append(Cell(d=f"M{j} {i}h1", tip=said))
    y_ticks = [
        Text(
            x=round(left - 6, 1),
            y=round(top + cell_h * (n - first[0] + 0.5) / row_step + 4, 1),
            text=str(n),
            anchor="end",
        )
        for n in _cell_ticks(rows_given, first[0], 15, cell_h / row_step)
    ]
    x_ticks = [
        Text(
            x=round(left + cell_w * (n - first[1] + 0.5) / column_step, 1),
            y=round(bottom + 15, 1),
            text=str(n),
            anchor="middle",
        )
        for n in _cell_ticks(columns_given, first[1], 24, cell_w / column_step)
    ]
    if sum(map(len, cells.values())) > (ASIDE if aside else TIPS):
        cells = {tone: [Cell(d="".join(c.d for c in found))] for tone, found in cells.items() if found}
    words = [Text(x=round(max(right, left + 70), 1), y=round(bottom + 32, 1), text=columns, anchor="end", tone="axis")]
    keys, key_words = _legend(classes, left, max(right, min(width - 12, left + 300)), bottom + 46)
    rules = ""
    for border in borders:
        across, down = left + cell_w * border / column_step, top + cell_h * border / row_step
        end, start = (across, down) if lower else (right, top)
        rules += f"M{left:.1f} {down:.1f}H{end:.1f}M{across:.1f} {start:.1f}V{bottom:.1f}"
    return Panel(
        width=width,
        height=round(bottom + 46 + SWATCH + 20, 1),
        title=title,
        measure=f"{measure}; {rows} downwards"
        + (f", mean over blocks of {row_step} × {column_step}" if row_step * column_step > 1 else ""),
        desc=desc,
        frame=(round(left, 1), top, round(right, 1), round(bottom, 1)),
        x_ticks=tuple(x_ticks),
        y_ticks=tuple(y_ticks),
        words=(*words, *key_words),
        cells=Lattice(
            left=left,
            middle=round(top + cell_h / 2, 3),
            width=round(cell_w, 3),
            height=round(cell_h, 3),
            fill=(round(1 - gap / cell_w, 3), round(1 - gap / cell_h, 3)),
            classes=tuple(Cells(tone=tone, cells=tuple(found)) for tone, found in cells.items() if found),
        ),
        lines=(Path(d=rules, tone="border"),) if rules else (),
        keys=keys,
    )


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


def _block(index: int, step: int, first: int) -> str:
    start = first + index * step
    return str(start) if step == 1 else f"{start}–{start + step - 1}"


def _cell_ticks(count: int, first: int, room: float, pitch: float) -> list[int]:
    """Numbers of the cells that are labelled: a round step that leaves each label `room`."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, count) if s * pitch >= room)
    return [n for n in range(first, first + count) if n % step == 0]


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
