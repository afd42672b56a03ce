"""A figure as a drawing of its own, for a paper: panels side by side, every colour written out.

Widths are those of one and of two columns of a page. Words are set in the figure's own units, so that they come out
between 6 and 10 points.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from checks.figures.geometry import CHARACTER, Figure, Path, Row, Rows
from checks.figures.rows import WIDTH

WIDTHS = (85, 180)  # millimetres: one column, two columns
PER_ROW = {85: {"half": 1, "third": 1, "quarter": 2}, 180: {"half": 2, "third": 3, "quarter": 4}}
GAP = 24.0
HEAD = 34.0  # title and measure above a panel
KEY = 18.0  # a line of the legend
ROW, ROWS_WIDE = 38.0, {85: 480.0, 180: 800.0}  # of aligned rows: pitch, and width in units
RANGE = 110.0  # kept for a row's range
SWATCH = {"line": "M1-4h24", "dash": "M1-4h24", "area": "M1-10h24v10h-24z", "mark": ""}
DASHES = "5 4"


def layout(figure: Figure, millimetres: int) -> dict[str, Any]:
    """Everything that `figure.svg` writes: places of panels, rows, legend, and the size."""
    placed, width, bottom = _panels(figure, PER_ROW[millimetres][figure.size])
    rows: dict[str, Any] = {"rows": (), "ticks": (), "names": 0, "after": 0}
    if figure.rows:
        width = max(width, ROWS_WIDE[millimetres])
        rows, bottom = _rows(figure.rows, width, bottom)
    keys, top = _keys(figure, width)
    for part in (*placed, *rows["rows"], *rows["ticks"]):
        part["y"] = round(part["y"] + top, 1)
    height = bottom + top
    return {
        "id": figure.id,
        "caption": figure.caption,
        "millimetres": millimetres,
        "tall": round(millimetres * height / width, 1),
        "width": round(width, 1),
        "height": round(height, 1),
        "panels": placed,
        "legend": keys,
        "ink": PALETTE["ink"],
        "hair": PALETTE["hair"],
        **rows,
    }


def _panels(figure: Figure, columns: int) -> tuple[list[dict[str, Any]], float, float]:
    placed: list[dict[str, Any]] = []
    top = width = 0.0
    for start in range(0, len(figure.panels), columns):
        left = bottom = 0.0
        for panel in figure.panels[start : start + columns]:
            down = top
            for part in (panel, *panel.below):
                placed.append({"panel": part, "x": round(left, 1), "y": down})
                down += part.height + HEAD
            bottom = max(bottom, down)
            left += panel.width + GAP
            width = max(width, left - GAP)
        top = bottom + GAP / 2
    return placed, width, top


def _rows(rows: Rows, width: float, top: float) -> tuple[dict[str, Any], float]:
    groups = CHARACTER * max((len(row.group) for row in rows.rows), default=0)
    names = groups + CHARACTER * max(len(row.name) for row in rows.rows) + 8
    stretch = (width - names - 10 - RANGE) / WIDTH
    left = names + 10
    placed = [
        {"row": _moved(row, left, stretch), "y": round(top + i * ROW, 1)} for i, row in enumerate(rows.rows)
    ]
    bottom = top + len(rows.rows) * ROW
    ticks = [
        {"x": round(left + at / 100 * WIDTH * stretch, 1), "y": bottom + 14, "text": text} for at, text in rows.ticks
    ]
    after = round(left + WIDTH * stretch + 10, 1)
    return {"rows": placed, "ticks": ticks, "names": round(names, 1), "after": after}, bottom + 22


def _moved(row: Row, left: float, stretch: float) -> Row:
    def all_of(paths: Sequence[Path]) -> tuple[Path, ...]:
        return tuple(replace(path, d=stretched(path.d, left, stretch)) for path in paths)

    return replace(row, areas=all_of(row.areas), lines=all_of(row.lines))


def stretched(d: str, left: float, factor: float) -> str:
    """A path of M, m, l, h and z with its horizontal coordinates multiplied, and moved to the right.

    >>> stretched("M10 2l5 1h0z", 100, 2)
    'M120 2l10 1h0z'
    """
    written = []
    for command, body in re.findall(r"([Mmlhz])([^Mmlhz]*)", d):
        given = [float(v) for v in re.findall(r"-?\d*\.?\d+", body)]
        if command == "h":
            given = [given[0] * factor]
        else:
            given = [v * factor + (left if command == "M" else 0) if i % 2 == 0 else v for i, v in enumerate(given)]
        written.append(command + " ".join(f"{round(v, 1):g}" for v in given))
    return "".join(written)


def _keys(figure: Figure, width: float) -> tuple[list[dict[str, Any]], float]:
    keys, x, y = [], 0.0, KEY - 4
    every = [*figure.keys, *(key for panel in figure.panels for key in panel.legend)]
    for key in dict.fromkeys(every):
        wide = 32 + CHARACTER * len(key.name) + GAP
        if x and x + wide > width:
            x, y = 0.0, y + KEY
        tone = f"{key.tone} dash" if key.kind == "dash" else key.tone
        keys.append({"key": key, "x": round(x, 1), "y": y, "swatch": Path(d=SWATCH[key.kind], tone=tone)})
        x += wide
    return keys, y + KEY if keys else 0.0


# --- colours: those of the style sheet in the light ----------------------------------------------------------------


def _palette() -> dict[str, str]:
    here = FilePath(__file__)
    folders = [here.parents[1] / "templates", here.parents[2] / "templates"]
    style = next(folder / "style.css" for folder in folders if folder.is_dir()).read_text(encoding="utf-8")
    light = style[: style.index("@media")]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))


PALETTE: Mapping[str, str] = _palette()
NAMED = {"limit": "ink", "border": "ink", "zero": "s7"}


def colour(tone: str) -> str:
    """Of the first word of a tone."""
    name = tone.split()[0]
    return PALETTE[NAMED.get(name, name)]


def stroke(tone: str) -> Iterator[tuple[str, str]]:
    """Attributes of a line of this tone."""
    words = tone.split()
    yield from {"fill": "none", "stroke": colour(tone), "stroke-linejoin": "round"}.items()
    wide = {"thin": "1", "leader": "1", "zero": "1", "border": "1.2", "strong": "2.4", "spots": "3.6"}
    yield "stroke-width", next((wide[word] for word in words if word in wide), "1.5")
    yield "stroke-linecap", "butt" if "dash" in words else "round"
    if "dash" in words:
        yield "stroke-dasharray", DASHES


def fill(tone: str) -> Iterator[tuple[str, str]]:
    """Attributes of an area of this tone."""
    yield "fill", colour(tone)
    if "pale" in tone.split():
        yield "fill-opacity", "0.22"
