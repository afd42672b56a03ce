"""Figures of `head_geometry`: the best descriptor of every head against its attention entropy, beside chance."""

import math
import statistics
from collections.abc import Sequence

from checks.figures import axes
from checks.figures.geometry import Figure, Key, Panel, Shape, Value
from checks.figures.heatmaps import SEQUENTIAL
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.sections.section import CROWDED, Record, table

OUTCOME = "entropy"
VERSIONS = {"gained": "gains folded in", "exact": "as stored"}  # tables of the record, the one that counts first
NAMES = {
    "op": "σ max",
    "fro": "√Σσ²",
    "trace": "Σσ",
    "rank_eff": "Σσ/σ max",
    "spec_ent": "spectral entropy",
    "anisotropy": "σ max/mean σ",
    "condition": "σ max/σ min",
}
"""The seven descriptors of a spectrum as the page names them."""

THIRDS: tuple[Shape, ...] = ("circle", "square", "triangle")
PALEST = 3  # tones below this one are too pale for a mark
LEAST_HEADS = 5  # with four the density of a chance r is flat, with three it has none at ±1
LEVEL = 0.95  # of the chance that the wedge covers


def version_of(record: Record) -> str | None:
    """The table that is shown: gains folded in, else as stored; None where neither could be had."""
    return next((version for version in VERSIONS if record["tables"][version][OUTCOME]), None)


def scatter(record: Record, version: str) -> Figure:
    association = record["tables"][version][OUTCOME]
    best = association["best"]
    xs, ys = record["descriptors"][version][best], record["outcomes"][OUTCOME]
    layers = record["num_layers"]
    x = axes.linear([v for row in xs for v in row], label=f"{NAMES[best]} of g ({best})")
    plot = Plot(x=x, y=axes.linear([v for row in ys for v in row], label="mean attention entropy (nats)"), height=200)
    _chance_wedge(plot, xs, ys, association["shift_null"])
    for layer in range(layers):
        tone = _depth_tone(layer, layers)
        pairs = [f"{number(a)}, {number(b)}" for a, b in zip(xs[layer], ys[layer], strict=True)]
        if ends := _slope(xs[layer], ys[layer]):
            plot.line(*ends, f"{tone} thin")
        crowded = layers * len(pairs) > CROWDED
        shape = THIRDS[layer * 3 // layers]
        plot.heads(layer, xs[layer], ys[layer], tone, shape=shape, values=pairs, crowded=crowded)
    if ends := _slope([v for row in xs for v in row], [v for row in ys for v in row]):
        plot.line(*ends, "s6", dash=True)
    r = association["descriptors"][best]["r"]
    finding = (
        f"{best} is the best of seven: r = {number(r['pooled'])} over all heads, {number(r['within'])} within "
        f"layers, {number(r['between'])} between layers."
    )
    return Figure(
        id="head_geometry-scatter",
        caption=(
            f"Every head’s best descriptor, {VERSIONS[version]}, against its attention entropy; thin lines are each "
            "layer’s own slope. Where they point another way than the dashed one, the pooled correlation is about "
            "depth. Grey: what chance reaches in 19 of 20 cases, the best of seven taken; beside the layers’ "
            "correlations, its density among one layer’s heads."
        ),
        panels=(plot.panel("Spectrum and entropy, head by head", finding), _by_layer(association, best)),
        keys=(
            Key(name="first third of the depth", tone=_depth_tone(0, 3), kind="mark", shape=THIRDS[0]),
            Key(name="middle third", tone=_depth_tone(1, 3), kind="mark", shape=THIRDS[1]),
            Key(name="last third", tone=_depth_tone(2, 3), kind="mark", shape=THIRDS[2]),
            Key(name="over all heads", tone="s6", kind="dash"),
        ),
        size="third",
        tables=(
            table(
                f"Correlation of {best} with entropy, layer by layer",
                "layer",
                [str(n) for n in association["layers"]],
                {"r": association["descriptors"][best]["by_layer"]},
            ),
        ),
    )


def _chance_wedge(
    plot: Plot, xs: Sequence[Sequence[Value]], ys: Sequence[Sequence[Value]], null: Sequence[float]
) -> None:
    """The slopes that unrelated tracks with the same drift over depth stay inside, in 19 of 20 cases."""
    pairs = [(a, b) for x, y in zip(xs, ys, strict=True) for a, b in zip(x, y, strict=True) if None not in (a, b)]
    if len(pairs) < 3 or not null:
        return
    (mean_x, sd_x), (mean_y, sd_y) = ((statistics.fmean(v), statistics.pstdev(v)) for v in zip(*pairs, strict=True))
    slope = sorted(null)[math.ceil(LEVEL * len(null)) - 1] * sd_y / sd_x if sd_x else 0.0
    low, high = min(a for a, _ in pairs), max(a for a, _ in pairs)
    across = sorted({low, mean_x, high, *(low + (high - low) * i / 24 for i in range(25))})
    reach = [slope * abs(x - mean_x) for x in across]
    plot.band(
        across,
        [mean_y - r for r in reach],
        [mean_y + r for r in reach],
        "chance",
        tip="slopes of 19 in 20 chance arrangements, the best of seven taken",
    )


def _depth_tone(layer: int, layers: int) -> str:
    return f"q{PALEST + round((SEQUENTIAL - 1 - PALEST) * layer / max(1, layers - 1))}"


def _slope(xs: Sequence[Value], ys: Sequence[Value]) -> tuple[list[float], list[float]] | None:
    """Ends of the least-squares line over the range of x; None for fewer than three points or no range."""
    pairs = [(a, b) for a, b in zip(xs, ys, strict=True) if a is not None and b is not None]
    if len(pairs) < 3 or len({a for a, _ in pairs}) < 2:
        return None
    slope, intercept = statistics.linear_regression(*zip(*pairs, strict=True))
    ends = [min(a for a, _ in pairs), max(a for a, _ in pairs)]
    return ends, [intercept + slope * end for end in ends]


def _by_layer(association: Record, best: str) -> Panel:
    values, r = association["descriptors"][best]["by_layer"], association["descriptors"][best]["r"]
    plot = Plot(
        x=axes.layers(association["layers"][-1] + 1),
        y=axes.fixed(-1.05, 1.05, label="r among the heads of one layer"),
        height=200,
        room=8,
        aside=30,
    )
    heads = round(association["heads"] / len(association["layers"]))
    if heads >= LEAST_HEADS:
        steps = [i / 25 for i in range(-25, 26)]
        density = [(1 - r * r) ** ((heads - 4) / 2) for r in steps]
        plot.margin_null(steps, density, "chance", f"chance: r among {heads} unrelated heads")
    plot.level(0, "zero", dash=False)
    if r["pooled"] is not None:
        plot.level(r["pooled"], "s6", label="pooled")
    if r["within"] is not None:
        plot.level(r["within"], "s0", label="within")
    plot.points(association["layers"], values, "s0")
    same = sum(v is not None and v * (r["pooled"] or 0) > 0 for v in values)
    return plot.panel(
        "Each layer’s own correlation", f"{same} of {len(values)} layers have the sign of the pooled correlation."
    )
