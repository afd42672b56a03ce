"""Figures of `delta_svd`: size and rank of each layer's write, over depth and by mode."""

from checks.figures import axes
from checks.figures.geometry import QUARTER, Figure, Key, Panel, Value
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.sections.delta_svd.annealing import annealing
from checks.sections.delta_svd.directions import directions, phases
from checks.sections.section import Record, layer_names, median, table

SCREES = 6  # layers whose leading singular values are drawn, evenly over depth


def figures(record: Record) -> dict[str, Figure]:
    drawn = {
        "depth": _depth(record),
        "directions": directions(record),
        "phases": phases(record),
        "annealing": annealing(record),
        "scree": _scree(record),
    }
    return {name: figure for name, figure in drawn.items() if figure}


def by_layer(record: Record, key: str, part: str | None = None) -> list[Value]:
    """One number of every layer; `part` names one of its spectra."""
    layers = record["layers"] if part is None else [layer[part] for layer in record["layers"]]
    return [None if layer is None else layer[key] for layer in layers]


def _lines(count: int, tracks: dict[str, tuple[list[Value], str, bool]], y: axes.Axis, title: str, desc: str) -> Panel:
    plot = Plot(x=axes.layers(count), y=y, height=165)
    for track, tone, dash in tracks.values():
        plot.line(range(count), track, tone, dash=dash)
        plot.points(range(count), track, tone)
    return plot.panel(title, desc)


def _depth(record: Record) -> Figure:
    count = record["num_layers"]
    published, centred, rows, bare = (
        by_layer(record, "top1_frac"),
        *(by_layer(record, "top1_frac", part) for part in ("centred", "unit_rows", "without_outliers")),
    )
    rank, rank_centred = by_layer(record, "eff_rank"), by_layer(record, "eff_rank", "centred")
    step = by_layer(record, "rel_step_mean")
    medians = {
        n: median(t)
        for n, t in (
            ("published", published),
            ("centred", centred),
            ("rows", rows),
            ("rank", rank_centred),
            ("step", step),
        )
    }
    panels = (
        _lines(
            count,
            {"δ": (rank, "s1", True), "centred δ": (rank_centred, "s0", False)},
            axes.linear([*rank, *rank_centred], label="effective rank of the write", include=(0.0,)),
            "Effective rank",
            f"The median centred write has an effective rank of {number(medians['rank'])}, of "
            f"{record['hidden']} at most.",
        ),
        _lines(
            count,
            {
                "δ": (published, "s1", True),
                "unit rows": (rows, "s2", True),
                "without outliers": (bare, "s7", True),
                "centred δ": (centred, "s0", False),
            },
            axes.fixed(0, 1.03, label="share of energy in the first direction"),
            "Top-1 share",
            f"Median over layers: {number(medians['published'])} as published, {number(medians['centred'])} "
            f"with the mean removed, {number(medians['rows'])} with unit rows.",
        ),
        _lines(
            count,
            {"relative step": (step, "s0", False)},
            axes.logarithmic(step, label="mean of ‖δ‖ / ‖h‖ over tokens (log axis)"),
            "Step size",
            f"The median layer moves a token by {number(medians['step'])} of its length.",
        ),
    )
    columns = {
        "effective rank": rank,
        "effective rank, centred": rank_centred,
        "top-1": published,
        "top-1, centred": centred,
        "top-1, unit rows": rows,
        "top-1, outliers left out": bare,
        "mean’s share": by_layer(record, "mean_share"),
        "largest token’s share": by_layer(record, "top_token_share"),
        "relative step": step,
        "cos(δ, h)": by_layer(record, "cos_delta_h_mean"),
    }
    return Figure(
        id="delta_svd-depth",
        caption=(
            "How many directions a layer writes, how much of it goes into the first, and how far it moves a "
            "token. As it stands, the first "
            "direction is mostly the mean write; the solid line has it removed."
        ),
        panels=panels,
        keys=(
            Key(name="mean removed", tone="s0"),
            Key(name="as published", tone="s1", kind="dash"),
            Key(name="unit rows", tone="s2", kind="dash"),
            Key(name="largest dimensions left out", tone="s7", kind="dash"),
        ),
        tables=(table("Writes by layer", "layer", layer_names(count), columns),),
        size="third",
    )


def _scree(record: Record) -> Figure:
    count = record["num_layers"]
    chosen = sorted({round(i * (count - 1) / (SCREES - 1)) for i in range(SCREES)})
    shares = {
        layer: (_shares(record["layers"][layer]), _shares(record["layers"][layer]["centred"])) for layer in chosen
    }
    y = axes.logarithmic(
        [v for pair in shares.values() for track in pair for v in track], label="share of energy (log)"
    )
    panels = []
    for layer, (published, centred) in shares.items():
        modes = axes.layers(10, label="mode", first=1, count=3)
        plot = Plot(x=modes, y=y, width=QUARTER, height=130)
        for track, tone, dash in ((published, "s1", True), (centred, "s0", False)):
            ranks = list(range(1, len(track) + 1))
            plot.line(ranks, track, tone, dash=dash)
            plot.points(ranks, track, tone)
        first = centred[0] if centred else None
        panels.append(
            plot.panel(
                f"Layer {layer}", f"Layer {layer}: the first centred direction holds {number(first)} of the energy."
            )
        )
    return Figure(
        id="delta_svd-scree",
        caption="The ten leading directions of a layer’s write, in a few layers over depth.",
        panels=tuple(panels),
        keys=(Key(name="mean removed", tone="s0"), Key(name="as published", tone="s1", kind="dash")),
        size="quarter",
    )


def _shares(spectrum: Record | None) -> list[float]:
    """Energy shares of the leading modes, from σ and the first one's share."""
    if not spectrum or not spectrum["singvals"]:
        return []
    total = spectrum["singvals"][0] ** 2 / spectrum["top1_frac"]
    return [value**2 / total for value in spectrum["singvals"]]
