"""Figure of `head_grams` that no change of coordinates moves: heads with all gains folded in, over all distances."""

from collections.abc import Sequence

from checks.figures import axes
from checks.figures.geometry import Figure, Key, Panel, Value
from checks.figures.numbers import number, percent
from checks.figures.plots import Plot, binned
from checks.sections.section import CROWDED, Record, median, pair_names, table

# analyses.head_grams.MIXED, written again because importing that module imports torch; a test holds them together.
MIXED = (0.2, 0.8)
BINS = 20  # of the histogram of negative energy


def folded(record: Record) -> Figure | None:
    """Similarity and shared directions of adjacent layers' heads, and the signs of each head's metric."""
    found = record["folded"]
    similar = [[None if v is None else abs(v) for v in row] for row in found["similarity"] or ()]
    ratios = [
        [None if v is None or not chance else v / chance for v in row]
        for row, chance in zip(found["overlap"] or (), found["overlap_chance"] or (), strict=True)
    ]
    drawn = (
        ("Similarity with the next layer", "|similarity| at the best matching", similar, None),
        ("Shared top directions", "overlap ÷ that of subspaces that the layers read anyway", ratios, 1.0),
    )
    panels = [_by_pair(*subject) for subject in drawn if any(v is not None for row in subject[2] for v in row)]
    if found["negative"]:
        panels.append(sign_energy(found["negative"], "Negative energy of a head"))
    if not panels:
        return None
    columns = {
        "similarity, median": [median(row) for row in similar],
        "overlap ÷ chance, median": [median(row) for row in ratios] or [None] * len(similar),
    }
    return Figure(
        id="head_grams-folded",
        caption=(
            "Heads with all gains folded in, compared over all distances between tokens: each with its best match in "
            "the next layer, and how much of each one’s metric is negative. Unrelated queries and keys give a half."
        ),
        panels=tuple(panels),
        keys=(
            Key(name="one head", tone="s5 faint", kind="mark", shape="dot"),
            Key(name="median", tone="s0"),
            Key(name="chance", tone="s7", kind="dash"),
        ),
        tables=(table("Folded heads of adjacent layers", "layers", pair_names(len(similar)), columns),),
        size="third",
    )


def _by_pair(title: str, label: str, rows: Sequence[Sequence[Value]], chance: float | None) -> Panel:
    flat = [v for row in rows for v in row]
    plot = Plot(x=axes.layers(len(rows) + 1), y=axes.linear([*flat, chance], label=label, include=(0.0,)))
    for layer, row in enumerate(rows):
        at = [layer + 0.5] * len(row)
        crowded = len(flat) > CROWDED
        values = () if crowded else [number(v) for v in row]
        plot.heads(layer, at, row, "s5 faint", shape="dot", values=values, crowded=crowded)
    if chance is not None:
        plot.level(chance, "s7")
    medians = [median(row) for row in rows]
    plot.line([n + 0.5 for n in range(len(rows))], medians, "s0")
    known = [v for v in medians if v is not None]
    desc = f"Medians over heads go from {number(min(known, default=None))} to {number(max(known, default=None))}."
    return plot.panel(title, desc)


def sign_energy(shares: Sequence[Sequence[Value]], title: str) -> Panel:
    """How many heads have how much of their energy in negative eigenvalues."""
    heads = [v for row in shares for v in row if v is not None]
    counts = binned(heads, BINS)
    y = axes.fixed(0, 1.06 * max(*counts, 1), label="heads, by share of negative energy")
    plot = Plot(x=axes.fixed(0, 1, label="Σ λ² over λ < 0, of all"), y=y)
    plot.bar(*MIXED, 0, y.high, "chance", f"mixed sign: between {number(MIXED[0], 1)} and {number(MIXED[1], 1)}")
    plot.histogram(counts, "s0 bar", unit=" heads")
    inside = sum(MIXED[0] <= v <= MIXED[1] for v in heads)
    desc = (
        f"{inside} of {len(heads)} heads have between {percent(MIXED[0])} and {percent(MIXED[1])} of their energy in "
        f"negative eigenvalues; the median is {number(median(heads))}."
    )
    return plot.panel(title, desc)
