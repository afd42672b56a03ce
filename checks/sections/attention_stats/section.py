"""Figures and text of `attention_stats`: what each head attends to, and how sharply."""

from collections.abc import Sequence

from checks.figures import axes
from checks.figures.geometry import Figure, Key, Panel, Value
from checks.figures.heatmaps import Matrix, heatmap, sequential
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.sections.section import CROWDED, Comparison, Record, Section, layer_names, median, spread_by_layer, table

WIDEST = 16  # heads in a table; of more, the least, the median and the greatest


def figures(record: Record) -> dict[str, Figure]:
    return {"entropy": _entropy(record), "spread": _spread(record)} if record["dynamic"] is not None else {}


def _by_head(record: Record, key: str) -> list[list[Value]]:
    return [layer[key] for layer in record["dynamic"]]


def _entropy(record: Record) -> Figure:
    maps = (
        ("entropy_fraction_per_head", "Entropy of attention", "fraction of its maximum, ln(visible keys)"),
        ("sink_share_per_head", "Attention on the first key", "mean probability"),
    )
    panels, tables = [], []
    for key, title, measure in maps:
        values = _by_head(record, key)
        flat = _flat(values)
        finding = (
            f"{title}: median {number(median(flat))} over heads, from {number(min(flat, default=None))} to "
            f"{number(max(flat, default=None))}."
        )
        panels.append(
            heatmap(
                Matrix(values=[list(heads) for heads in zip(*values, strict=True)], rows="head", columns="layer"),
                sequential(0.0 if key.startswith("sink") else min(flat, default=0.0), max(flat, default=1.0)),
                title=title,
                measure=measure,
                desc=finding,
            )
        )
        tables.append(table(f"{title}, {measure}", "layer", layer_names(len(values)), _columns(values)))
    return Figure(
        id="attention_stats-entropy",
        caption=(
            "Every head of every layer. Entropy is given as a fraction of what uniform attention over the visible keys "
            "would have; the first key is one that many models use as a sink."
        ),
        panels=tuple(panels),
        size="third",
        tables=tuple(tables),
    )


def _columns(values: Sequence[Sequence[Value]]) -> dict[str, list[Value]]:
    if len(values[0]) <= WIDEST:
        return {f"head {h}": [row[h] for row in values] for h in range(len(values[0]))}
    return spread_by_layer(values)


def _flat(values: Sequence[Sequence[Value]]) -> list[float]:
    return [v for row in values for v in row if v is not None]


def _spread(record: Record) -> Figure:
    spread, bare = _by_head(record, "mean_logit_std_per_head"), _by_head(record, "logit_std_without_sink_per_head")
    count = len(spread)
    columns = {
        **spread_by_layer(spread),
        "median, first key left out": [median(row) for row in bare],
        "temperature": record["temperature"],
    }
    return Figure(
        id="attention_stats-spread",
        caption=(
            "Standard deviation of a query’s logits over its visible keys, averaged over queries: every head, and the "
            "median with and without the first key. One over its mean in a layer is the layer’s temperature."
        ),
        panels=(_spread_panel(spread, columns),),
        keys=(
            Key(name="one head", tone="s5 faint", kind="mark", shape="dot"),
            Key(name="median over heads", tone="s0"),
            Key(name="median, first key left out", tone="s1", kind="dash"),
        ),
        tables=(table("Logit spread over heads, by layer", "layer", layer_names(count), columns),),
    )


def _spread_panel(spread: Sequence[Sequence[Value]], columns: dict[str, list[Value]]) -> Panel:
    count = len(spread)
    y = axes.linear(
        [*_flat(spread), *columns["median, first key left out"]],
        label="standard deviation (nats)",
        include=(0.0,),
    )
    plot = Plot(x=axes.layers(count), y=y)
    for layer, row in enumerate(spread):
        at, crowded = [layer] * len(row), count * len(row) > CROWDED
        values = () if crowded else [number(v) for v in row]
        plot.heads(layer, at, row, "s5 faint", shape="dot", values=values, crowded=crowded)
    plot.line(range(count), columns["median, first key left out"], "s1", dash=True)
    plot.line(range(count), columns["median"], "s0")
    finding = (
        f"The median spread goes from {number(columns['median'][0])} in the first layer to "
        f"{number(columns['median'][-1])} in the last."
    )
    return plot.panel("Spread of the logits", finding)


def facts(record: Record) -> dict[str, str]:
    text = record["calibration"]
    return {
        "heads": number(record["num_layers"] * record["num_heads"]),
        "tokens": number(text["tokens"]) if text else "",
        "text": text["calibration"] if text else "",
        "queries": number(record["queries"]),
        "no_forward": record["absent"].get("dynamic", ""),
    }


def published(record: Record) -> list[Comparison]:
    ratios, tops = [], []
    for layer in record["static"]:
        for old, exact in zip(layer["metric_singvals_per_head"], layer["singvals_per_head"], strict=True):
            if exact[0] and old[0]:
                ratios.append(sum(v * v for v in old) / sum(v * v for v in exact))
                tops.append(old[0] / exact[0])
    return [
        Comparison(
            quantity="Singular values of a head",
            published=(
                f"those of W_k W_qᵀ, another matrix: σ₁ is {number(median(tops))} and Σσ² "
                f"{number(median(ratios))} of the right one in the median head"
            ),
            corrected="those of g = W_kᵀ W_q, exact",
        )
    ]


SECTION = Section(
    name="attention_stats",
    question="What does each head attend to, and how sharply?",
    short="Attention",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "Every dynamic number belongs to the calibration text: another text gives other entropies.",
        "A mean over queries hides heads that are sharp for a few queries and flat for the rest.",
    ),
)
