"""Labels that do not touch each other, words that run out of their panel, and tooltips."""

from collections.abc import Iterable, Sequence

from checks.figures.geometry import CHARACTER, Text, Value
from checks.figures.numbers import number


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
        if not kept or extent(tick)[0] > extent(kept[-1])[1] + 7:
            kept.append(tick)
    return kept


def extent(text: Text) -> tuple[float, float]:
    """Left and right end of a word, estimated from its number of characters."""
    width = CHARACTER * len(text.text)
    left = text.x - {"start": 0.0, "middle": width / 2, "end": width}[text.anchor]
    return left, left + width


def outside(words: Iterable[Text], width: float) -> list[str]:
    """The words that run over an edge of a panel of this width; coordinates are rounded to a tenth of a unit."""
    return [word.text for word in words if extent(word)[0] < -0.1 or extent(word)[1] > width + 0.1]


def tips(names: Iterable[str], values: Iterable[Value], unit: str = "") -> list[str]:
    """Tooltips "name: value unit" with four digits."""
    return [f"{name}: {number(value, 4)}{unit}" for name, value in zip(names, values, strict=True)]
