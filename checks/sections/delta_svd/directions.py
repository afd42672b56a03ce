"""Figures of `delta_svd`: likeness of the directions that layers write, and the published phases."""

from collections.abc import Sequence

from checks.figures import axes
from checks.figures.geometry import Figure, Key, Value
from checks.figures.heatmaps import Matrix, heatmap, sequential
from checks.figures.numbers import number, percent
from checks.figures.plots import Plot
from checks.sections.section import Record, median, pair_names, random_cos, table


def _known(matrix: Sequence[Sequence[Value]]) -> list[float]:
    """What a heatmap of the lower half shows."""
    return [v for i, row in enumerate(matrix) for v in row[:i] if v is not None]


def directions(record: Record) -> Figure:
    borders = sorted(phase["first"] for phase in record["phases"].values() if phase and phase["first"] > 0)
    panels, tables = [], []
    for key, title in (("abs_cos_centred", "Mean removed"), ("abs_cos", "As published")):
        matrix = record[key]
        adjacent = [matrix[i + 1][i] for i in range(len(matrix) - 1)]
        finding = (
            f"{title}: adjacent layers’ top directions have a median |cos| of {number(median(adjacent))}. "
            "Rules mark the published phases."
        )
        panels.append(
            heatmap(
                Matrix(values=matrix, rows="layer", columns="layer", lower=True, borders=borders),
                sequential(0.0, max(_known(matrix), default=1.0)),
                title=title,
                measure="|cos| of top directions",
                desc=finding,
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
            pair_names(record["num_layers"] - 1),
            columns,
        )
    )
    return Figure(
        id="delta_svd-directions",
        caption=(
            "How alike the top directions of two layers’ writes are. Two random directions in this space have "
            "a mean |cos| of about "
            f"{number(random_cos(record['hidden']))}. Rules are the borders of the published phases."
        ),
        panels=tuple(panels),
        tables=tuple(tables),
    )


def phases(record: Record) -> Figure:
    present = {name: phase for name, phase in record["phases"].items() if phase}
    names = [
        f"{name}: {p['first']}–{p['last']}" if p["first"] != p["last"] else f"{name}: {p['first']}"
        for name, p in present.items()
    ]
    y = axes.fixed(0, 1.03, label="share in its phase’s basis")
    plot = Plot(x=axes.layers(record["num_layers"]), y=y)
    columns: dict[str, list[Value]] = {
        key: [] for key in ("intra", "cross", "capture as published", "its chance", "capture left out", "its chance ")
    }
    for phase in present.values():
        span = range(phase["first"], phase["last"] + 1)
        left_out = phase["capture_left_out_centred"] or [None] * len(span)
        ends = (span[0] - 0.45, span[-1] + 0.45)
        plot.line(ends, [phase["capture_chance"]] * 2, "s1", dash=True)
        if phase["capture_left_out_chance"] is not None:
            plot.line(ends, [phase["capture_left_out_chance"]] * 2, "s7", dash=True)
        plot.points(list(span), phase["capture"], "s1", shape="square")
        plot.points(list(span), left_out, "s0")
        row = (
            phase["intra_centred"],
            phase["cross_centred"],
            median(phase["capture"]),
            phase["capture_chance"],
            median(left_out),
            phase["capture_left_out_chance"],
        )
        for key, value in zip(columns, row, strict=True):
            columns[key].append(value)
        if phase["first"]:
            plot.border(phase["first"] - 0.5, "border")
    test = record["phase_test_centred"]
    finding = _separated(test) if test["p"] is not None else "The phases cannot be tested at this depth."
    return Figure(
        id="delta_svd-phases",
        caption=(
            "How much of each layer’s top direction lies in the shared rank-8 basis of its phase. As "
            "published, the basis contains the layer itself; "
            "left out, it is made of the phase’s other layers. " + finding
        ),
        panels=(plot.panel("Capture by the published phases", finding),),
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


def _separated(test: Record) -> str:
    """Whether layers of one phase are more alike than layers of two, and how easily other phases would be so."""
    more = "more" if test["difference"] > 0 else "less"
    return (
        f"At equal distance, two layers of one phase are {more} alike than two layers of different phases, by "
        f"{number(abs(test['difference']))} in |cos|. Of {number(test['segmentations'])} other ways to cut the stack "
        f"into phases, {percent(test['p'])} separate it at least as well."
    )
