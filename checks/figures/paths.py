"""SVG paths of lines, areas and rectangles, in few bytes.

Coordinates are rounded to a tenth of a unit, so that the same records make the same bytes, and the
steps of a line are relative to the point before. A missing point leaves a gap.
"""

import math
from collections.abc import Iterable, Sequence

Point = tuple[float, float]
SEEN = 0.15  # units: what the edge of a pale band may be off without anybody seeing it


def tidy(value: float, digits: int = 1) -> float:
    """A coordinate to a tenth of a unit, as an integer where it is one: shorter, and nobody sees the rest.

    >>> tidy(3.04), tidy(3.06)
    (3, 3.1)
    """
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded


def polyline(points: Iterable[Point | None]) -> str:
    """A path through the points; None lifts the pen, and a lone point becomes a dot.

    >>> polyline([(0, 0), (1, 2), (3, 1.5), None, (3, 4)])
    'M0 0l1 2 2-.5M3 4h0'
    """
    d, run = [], []
    for point in [*points, None]:
        if point:
            run.append(point)
        elif run:
            d.append(through(run) if len(run) > 1 else f"M{_pair(*run[0])}h0")
            run = []
    return "".join(d)


def through(points: Sequence[Point]) -> str:
    """A path from the first of at least two points through the others, each where it is rounded to."""
    points = [(round(x, 1), round(y, 1)) for x, y in points]
    steps = [(bx - ax, by - ay) for (ax, ay), (bx, by) in zip(points, points[1:], strict=False)]
    written = "".join(f"{'' if at.startswith('-') else ' '}{at}" for at in (_pair(*step) for step in steps))
    return f"M{_pair(*points[0])}l{written.lstrip()}"


def rectangle(left: float, top: float, right: float, bottom: float) -> str:
    """A closed rectangle; left ≤ right, top ≤ bottom.

    >>> rectangle(1, 2, 4, 6)
    'M1 2h3v4h-3z'
    """
    width, height = round(right - left, 1), round(bottom - top, 1)
    return f"M{left:g} {top:g}h{width:g}v{height:g}h-{width:g}z"


def outline(piece: Sequence[tuple[Point, Point]]) -> str:
    """The area between a lower and an upper track, each a point of a pair."""
    uppers, lowers = bends([upper for _, upper in piece]), bends([lower for lower, _ in piece])
    return through([*uppers, *reversed(lowers)]) + "z"


def bends(points: Sequence[Point]) -> list[Point]:
    """Both ends, and of the points between them those that lie further than SEEN from the line without them.

    >>> bends([(0, 0), (1, 0.1), (2, 0), (3, 5)])
    [(0, 0), (2, 0), (3, 5)]
    """
    if len(points) < 3:
        return list(points)
    (ax, ay), (bx, by) = points[0], points[-1]
    span = math.hypot(bx - ax, by - ay)
    if not span:
        return list(points)
    off = [abs((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / span for x, y in points]
    worst = max(range(1, len(points) - 1), key=off.__getitem__)
    if off[worst] <= SEEN:
        return [points[0], points[-1]]
    return [*bends(points[: worst + 1])[:-1], *bends(points[worst:])]


def spots(points: Iterable[Point]) -> str:
    """A dot at each point, as steps from one to the next.

    >>> spots([(0, 1), (2.5, 3), (4, 3)])
    'M0 1h0m2.5 2h0m1.5 0h0'
    """
    x = y = 0.0
    d = ""
    for nx, ny in ((round(a, 1), round(b, 1)) for a, b in points):
        d += f"m{_pair(nx - x, ny - y)}h0" if d else f"M{_pair(nx, ny)}h0"
        x, y = nx, ny
    return d


def shapes(points: Sequence[Point], shape: str) -> str:
    """Marks of one shape as one path: dots and circles as spots, squares and triangles as outlines.

    >>> shapes([(10, 10), (12, 11)], "square")
    'M7.8 7.8h4.4v4.4h-4.4zm2 1h4.4v4.4h-4.4z'
    """
    if shape not in OUTLINES:
        return spots(points)
    (left, up), outline_ = OUTLINES[shape]
    return spots([(x + left, y + up) for x, y in points]).replace("h0", outline_)


OUTLINES = {"square": ((-2.2, -2.2), "h4.4v4.4h-4.4z"), "triangle": ((0.0, -3.0), "l3 5.4h-6z")}
"""Shape → where it begins from its middle, and the rest of it."""


def _pair(x: float, y: float) -> str:
    """Two numbers with nothing between them that can be left out."""
    first, second = _short(x), _short(y)
    return f"{first}{'' if second.startswith('-') else ' '}{second}"


def _short(value: float) -> str:
    text = f"{round(value, 1):g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else "0" if text == "-0" else text
