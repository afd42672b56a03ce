"""Figures and words of `delta_svd`: what each layer writes into the residual stream."""

import statistics
from collections.abc import Sequence

from checks import axes
from checks.figures import THIRD, Figure, Key, Panel, Value
from checks.heatmaps import heatmap, sequential
from checks.labels import tips
from checks.numbers import number
from checks.plots import Plot
from checks.section import Comparison, Record, Section, layer_names, table

SCREES = 6  # layers whose leading singular values are drawn, evenly over depth


def figures(record: Record) -> dict[str, Figure]:
    return {
        "depth": _depth(record),
        "directions": _directions(record),
        "phases": _phases(record),
        "scree": _scree(record),
    }


def _track(record: Record, key: str, part: str | None = None) -> list[Value]:
    """One number of every layer; `part` names one of its spectra."""
    layers = record["layers"] if part is None else [layer[part] for layer in record["layers"]]
    return [None if layer is None else layer[key] for layer in layers]


def _lines(count: int, tracks: dict[str, tuple[list[Value], str, bool]], y: axes.Axis, title: str, desc: str) -> Panel:
    plot = Plot(x=axes.layers(count), y=y, width=THIRD, height=200)
    for name, (track, tone, dash) in tracks.items():
        plot.line(range(count), track, tone, dash=dash)
        plot.points(
            range(count), track, tone, shape="dot", tips=tips([f"{name}, layer {n}" for n in range(count)], track)
        )
    return plot.panel(title, desc)


def _depth(record: Record) -> Figure:
    count = record["num_layers"]
    published, centred, rows, bare = (
        _track(record, "top1_frac"),
        *(_track(record, "top1_frac", part) for part in ("centred", "unit_rows", "without_outliers")),
    )
    rank, rank_centred = _track(record, "eff_rank"), _track(record, "eff_rank", "centred")
    step = _track(record, "rel_step_mean")
    medians = {
        n: _median(t)
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
        "mean’s share": _track(record, "mean_share"),
        "largest token’s share": _track(record, "top_token_share"),
        "relative step": step,
        "cos(δ, h)": _track(record, "cos_delta_h_mean"),
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


def _directions(record: Record) -> Figure:
    borders = sorted(phase["first"] for phase in record["phases"].values() if phase and phase["first"] > 0)
    panels, tables = [], []
    for key, title in (("abs_cos_centred", "Mean removed"), ("abs_cos", "As published")):
        matrix = record[key]
        adjacent = [matrix[i + 1][i] for i in range(len(matrix) - 1)]
        found = (
            f"{title}: adjacent layers’ top directions have a median |cos| of {number(_median(adjacent))}. "
            "Rules mark the published phases."
        )
        panels.append(
            heatmap(
                matrix,
                sequential(0.0, 1.0),
                title=title,
                measure="|cos| of top directions",
                desc=found,
                rows="layer",
                columns="layer",
                lower=True,
                tip=lambda i, j, v: f"L{i}, L{j}: {v}",
                borders=borders,
            )
        )
    columns = {
        title: [record[key][i + 1][i] for i in range(record["num_layers"] - 1)]
        for key, title in (("abs_cos_centred", "mean removed"), ("abs_cos", "as published"))
    }
    tables.append(
        table(
            "|cos| of adjacent layers’ top directions",
            "layers",
            [f"{i}–{i + 1}" for i in range(record["num_layers"] - 1)],
            columns,
        )
    )
    return Figure(
        id="delta_svd-directions",
        caption=(
            "How alike the top directions of two layers’ writes are. Two random directions in this space have "
            "a mean |cos| of about "
            f"{number(_random_cos(record['hidden']))}. Rules are the borders of the published phases."
        ),
        panels=tuple(panels),
        tables=tuple(tables),
    )


def _random_cos(hidden: int) -> float:
    """Mean |cos| of two random directions in many dimensions, √(2/(π·hidden))."""
    return (2 / (3.141592653589793 * hidden)) ** 0.5


def _phases(record: Record) -> Figure:
    phases = {name: phase for name, phase in record["phases"].items() if phase}
    names = [
        f"{name}: {p['first']}–{p['last']}" if p["first"] != p["last"] else f"{name}: {p['first']}"
        for name, p in phases.items()
    ]
    y = axes.fixed(0, 1.03, label="share of a layer’s top direction in its phase’s basis")
    plot = Plot(x=axes.layers(record["num_layers"]), y=y, height=230)
    columns: dict[str, list[Value]] = {
        key: [] for key in ("intra", "cross", "capture as published", "its chance", "capture left out", "its chance ")
    }
    for phase in phases.values():
        span = range(phase["first"], phase["last"] + 1)
        left_out = phase["capture_left_out_centred"] or [None] * len(span)
        ends = (span[0] - 0.45, span[-1] + 0.45)
        plot.line(ends, [phase["capture_chance"]] * 2, "s1", dash=True)
        if phase["capture_left_out_chance"] is not None:
            plot.line(ends, [phase["capture_left_out_chance"]] * 2, "s7", dash=True)
        plot.points(
            list(span),
            phase["capture"],
            "s1",
            shape="square",
            tips=tips([f"as published, layer {n}" for n in span], phase["capture"]),
        )
        plot.points(list(span), left_out, "s0", tips=tips([f"left out, layer {n}" for n in span], left_out))
        row = (
            phase["intra_centred"],
            phase["cross_centred"],
            _median(phase["capture"]),
            phase["capture_chance"],
            _median(left_out),
            phase["capture_left_out_chance"],
        )
        for key, value in zip(columns, row, strict=True):
            columns[key].append(value)
        if phase["first"]:
            plot.border(phase["first"] - 0.5, "border")
    test = record["phase_test_centred"]
    found = (
        f"At equal distance, pairs inside a phase are more alike than pairs across by {number(test['difference'])}; "
        f"{number(test['p'])} of {number(test['segmentations'])} other segmentations separate at least as well."
        if test["p"] is not None
        else "The phases cannot be tested at this depth."
    )
    return Figure(
        id="delta_svd-phases",
        caption=(
            "How much of each layer’s top direction lies in the shared rank-8 basis of its phase. As "
            "published, the basis contains the layer itself; "
            "left out, it is made of the phase’s other layers. " + found
        ),
        panels=(plot.panel("Capture by the published phases", found),),
        keys=(
            Key(name="layer left out, mean removed", tone="s0", kind="mark"),
            Key(name="its chance level", tone="s7", kind="dash"),
            Key(name="as published", tone="s1", kind="mark", shape="square"),
            Key(name="its chance level", tone="s1", kind="dash"),
        ),
        tables=(
            table("Phases: mean |cos| inside and across (mean removed), and median capture", "phase", names, columns),
        ),
    )


def _scree(record: Record) -> Figure:
    count = record["num_layers"]
    chosen = sorted({round(i * (count - 1) / (SCREES - 1)) for i in range(SCREES)})
    shares = {
        layer: (_shares(record["layers"][layer]), _shares(record["layers"][layer]["centred"])) for layer in chosen
    }
    y = axes.logarithmic(
        [v for pair in shares.values() for track in pair for v in track], label="share of energy, σ²/Σσ² (log axis)"
    )
    panels = []
    for layer, (published, centred) in shares.items():
        modes = axes.layers(10, label="mode", first=1)
        plot = Plot(x=modes, y=y, width=THIRD, height=160)
        for track, tone, dash in ((published, "s1", True), (centred, "s0", False)):
            ranks = list(range(1, len(track) + 1))
            plot.line(ranks, track, tone, dash=dash)
            plot.points(ranks, track, tone, shape="dot", tips=tips([f"mode {r}" for r in ranks], track))
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
        size="third",
    )


def _shares(spectrum: Record | None) -> list[float]:
    """Energy shares of the leading modes, from σ and the first one's share."""
    if not spectrum or not spectrum["singvals"]:
        return []
    total = spectrum["singvals"][0] ** 2 / spectrum["top1_frac"]
    return [value**2 / total for value in spectrum["singvals"]]


def _median(values: Sequence[Value]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def facts(record: Record) -> dict[str, str]:
    first = record["layers"][0]
    return {
        "tokens": number(record["tokens"]),
        "hidden": number(record["hidden"]),
        "published": number(_median(_track(record, "top1_frac"))),
        "centred": number(_median(_track(record, "top1_frac", "centred"))),
        "outliers": number(len(first["outlier_dims"])),
    }


def published(record: Record) -> list[Comparison]:
    last, said = record["layers"][-1], record["published_last"]
    tests = record["phase_test"], record["phase_test_centred"]
    multiple = [p for p in record["phases"].values() if p and p["capture_left_out_centred"]]
    rows = [
        Comparison(
            quantity="The last layer’s write",
            published=(
                f"taken after the final norm: cos(δ, h) {number(said['cos_delta_h_mean'])}, relative step "
                f"{number(said['rel_step_mean'])}, top-1 share {number(said['top1_frac'])}"
            ),
            corrected=(
                f"taken before it: cos(δ, h) {number(last['cos_delta_h_mean'])}, relative step "
                f"{number(last['rel_step_mean'])}, top-1 share {number(last['top1_frac'])}"
            ),
        ),
        Comparison(
            quantity="Share of a write in its first direction",
            published=(
                f"{number(_median(_track(record, 'top1_frac')))} in the median layer, of which the mean write "
                f"alone has {number(_median(_track(record, 'mean_share')))}"
            ),
            corrected=f"{number(_median(_track(record, 'top1_frac', 'centred')))} with the mean write removed",
        ),
    ]
    if multiple:
        rows.append(
            Comparison(
                quantity="Capture by a phase’s shared basis",
                published=(
                    f"{number(_median([v for p in multiple for v in p['capture']]))}, with the layer in its "
                    f"own basis (chance about {number(_median([p['capture_chance'] for p in multiple]))})"
                ),
                corrected=(
                    f"{number(_median([v for p in multiple for v in p['capture_left_out_centred']]))}, with "
                    "the layer left out (chance "
                    f"{number(_median([p['capture_left_out_chance'] for p in multiple]))})"
                ),
            )
        )
    if tests[1]["p"] is not None:
        rows.append(
            Comparison(
                quantity="Phases share a subspace",
                published="mean |cos| inside against across, whatever the distance",
                corrected=(
                    f"difference at equal distance {number(tests[1]['difference'])}, p {number(tests[1]['p'])} "
                    f"(with the mean left in: {number(tests[0]['difference'])}, p {number(tests[0]['p'])})"
                ),
            )
        )
    return rows


SECTION = Section(
    name="delta_svd",
    question="What does a layer write into the residual stream?",
    short="Writes",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "Every number belongs to the calibration text; directions that this text does not call for are not seen.",
        "A direction of the residual stream has no meaning of its own: rotating the stream with every weight "
        "that reads or writes it leaves the model alone, "
        "and moves which feature dimensions count as outliers.",
    ),
)
