"""Figures and words of `head_geometry`: spectra against attention."""

import statistics
from collections.abc import Sequence

from checks import axes
from checks.figures import Figure, Key, Panel, Shape, Table, Value
from checks.heatmaps import SEQUENTIAL
from checks.numbers import number
from checks.plots import Plot
from checks.rows import Series, dots
from checks.section import Comparison, Record, Section, table

VERSION, OUTCOME = "exact", "entropy"
NAMES = {
    "op": "σ max",
    "fro": "√Σσ²",
    "trace": "Σσ",
    "rank_eff": "Σσ/σ max",
    "spec_ent": "spectral entropy",
    "anisotropy": "σ max/mean σ",
    "condition": "σ max/σ min",
}
PARTS = {
    "pooled": Series(name="pooled over all heads", tone="s6", shape="diamond"),
    "within": Series(name="within layers", tone="s0", shape="circle"),
    "between": Series(name="between layers", tone="s1", shape="square"),
}
THIRDS: tuple[Shape, ...] = ("circle", "square", "triangle")
PALEST = 3  # tones below this one are too pale for a mark
BINS = 20


def figures(record: Record) -> dict[str, Figure]:
    found = record["tables"][VERSION][OUTCOME]
    return {"scatter": _scatter(record, found), "parts": _parts(found)} if found else {}


def _scatter(record: Record, found: Record) -> Figure:
    best = found["best"]
    xs, ys = record["descriptors"][VERSION][best], record["outcomes"][OUTCOME]
    layers = record["num_layers"]
    x = axes.linear([v for row in xs for v in row], label=f"{NAMES[best]} of g ({best})")
    plot = Plot(x=x, y=axes.linear([v for row in ys for v in row], label="mean attention entropy (nats)"), height=330)
    for layer in range(layers):
        tone = _depth_tone(layer, layers)
        tips = [
            f"L{layer} H{h}: {number(a)}, {number(b)}"
            for h, (a, b) in enumerate(zip(xs[layer], ys[layer], strict=True))
        ]
        if ends := _slope(xs[layer], ys[layer]):
            plot.line(*ends, f"{tone} thin")
        plot.points(xs[layer], ys[layer], tone, shape=THIRDS[layer * 3 // layers], tips=tips)
    if ends := _slope([v for row in xs for v in row], [v for row in ys for v in row]):
        plot.line(*ends, "s6", dash=True)
    r = found["descriptors"][best]["r"]
    said = (
        f"{best} is the best of seven: r = {number(r['pooled'])} over all heads, {number(r['within'])} within "
        f"layers, {number(r['between'])} between layers."
    )
    return Figure(
        id="head_geometry-scatter",
        caption=(
            "Every head’s best descriptor against its attention entropy. Colour and shape go from the first "
            "layer to the last. "
            "Thin lines: each layer’s own slope; "
            "the dashed one is the slope over all heads. Where they point different ways, the pooled "
            "correlation is about depth."
        ),
        panels=(plot.panel("Spectrum and entropy, head by head", said), _by_layer(found, best)),
        keys=(
            Key(name="first third of the depth", tone=_depth_tone(0, 3), kind="mark", shape=THIRDS[0]),
            Key(name="middle third", tone=_depth_tone(1, 3), kind="mark", shape=THIRDS[1]),
            Key(name="last third", tone=_depth_tone(2, 3), kind="mark", shape=THIRDS[2]),
            Key(name="over all heads", tone="s6", kind="dash"),
        ),
        tables=(
            table(
                f"Correlation of {best} with entropy, layer by layer",
                "layer",
                [str(n) for n in found["layers"]],
                {"r": found["descriptors"][best]["by_layer"]},
            ),
        ),
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


def _by_layer(found: Record, best: str) -> Panel:
    values, r = found["descriptors"][best]["by_layer"], found["descriptors"][best]["r"]
    plot = Plot(
        x=axes.layers(found["layers"][-1] + 1),
        y=axes.fixed(-1.05, 1.05, label=f"r of {best} with entropy among the heads of one layer"),
        height=330,
        room=8,
    )
    plot.level(0, "zero", dash=False)
    if r["pooled"] is not None:
        plot.level(r["pooled"], "s6", label="pooled")
    if r["within"] is not None:
        plot.level(r["within"], "s0", label="within")
    plot.points(
        found["layers"],
        values,
        "s0",
        tips=[f"layer {n}: r {number(v)}" for n, v in zip(found["layers"], values, strict=True)],
    )
    same = sum(v is not None and v * (r["pooled"] or 0) > 0 for v in values)
    return plot.panel(
        "Each layer’s own correlation", f"{same} of {len(values)} layers have the sign of the pooled correlation."
    )


def _parts(found: Record) -> Figure:
    known = {name: a for name, a in found["descriptors"].items() if a}
    values = {
        NAMES[name]: {part: (known[name]["r"][part], known[name]["r_interval"][part]) for part in PARTS}
        for name in NAMES
        if name in known
    }
    best = found["best"]
    said = f"Best of seven: {NAMES[best]}, |r| {number(found['best_abs_r'])} pooled."
    columns: dict[str, list[Value]] = {PARTS[part].name: [v[part][0] for v in values.values()] for part in PARTS}
    ordered = [known[name] for name in NAMES if name in known]
    columns |= {
        "Spearman, pooled": [a["spearman"]["pooled"] for a in ordered],
        "Spearman, within": [a["spearman"]["within"] for a in ordered],
        "p, layers shifted": [a["shift_p"] for a in ordered],
        "p, Holm": [a["shift_p_holm"] for a in ordered],
        "p, heads permuted": [a["within_p"] for a in ordered],
        "p, Holm ": [a["within_p_holm"] for a in ordered],
    }
    for i, name in enumerate(("first", "middle", "last")):
        columns[f"r, {name} third"] = [a["thirds"][i] for a in ordered]
    return Figure(
        id="head_geometry-parts",
        caption=(
            "Correlation with entropy of every descriptor, over all heads, inside layers, and between the "
            "means of layers, with 90 % intervals by "
            "resampling whole layers; without an association all three lie around zero. Beside it: what the "
            "best of seven reaches by chance, with whole "
            "layers of the descriptors shifted and reversed against those of the entropy, which keeps the "
            "drift over depth on both sides."
        ),
        panels=(
            dots(
                values,
                PARTS,
                x=axes.fixed(-1, 1, label="Pearson r with entropy"),
                title="Seven descriptors of a spectrum",
                measure="of g = W_kᵀ W_q",
                desc=said,
                levels=(0.0,),
            ),
            _null(found),
        ),
        keys=tuple(Key(name=s.name, tone=s.tone, kind="mark", shape=s.shape) for s in PARTS.values()),
        tables=(
            table("Correlation with entropy", "descriptor", list(values), columns),
            *_regression_tables(found),
            _null_table(found),
        ),
    )


def _regression_tables(found: Record) -> list:
    tables = []
    for name, regression in found["regressions"].items():
        if regression:
            columns = {"standardised coefficient": regression["beta"], "variance inflation": regression["vif"]}
            tables.append(
                table(
                    f"Regression as {name}: R² {number(regression['r2'])}, out of sample "
                    f"{number(regression['r2_out_of_sample'])}",
                    "predictor",
                    [NAMES[p] for p in regression["predictors"]],
                    {k: v or [None] * len(regression["predictors"]) for k, v in columns.items()},
                )
            )
    return tables


def _null(found: Record) -> Panel:
    null, observed = found["shift_null"], found["best_abs_r"]
    counts = [0] * BINS
    for value in null:
        counts[min(BINS - 1, int(value * BINS))] += 1
    y = axes.fixed(0, 1.1 * max(counts), label="rearrangements of whole layers")
    plot = Plot(x=axes.fixed(0, 1, label="largest |r| of the seven"), y=y, height=280)
    for i, count in enumerate(counts):
        if count:
            plot.bar(i / BINS, (i + 1) / BINS, 0, count, "s7 bar", f"{i / BINS:.2f} to {(i + 1) / BINS:.2f}: {count}")
    plot.border(observed, "s1 strong")
    plot.beside(observed, y.high * 0.93, f"observed {number(observed)}")
    said = f"{number(found['best_shift_p'])} of all arrangements reach the observed {number(observed)}."
    return plot.panel("Chance of the best of seven", said)


def _null_table(found: Record) -> Table:
    null = found["shift_null"]
    return table(
        "Largest |r| of the seven by rearrangement, ascending",
        "rank",
        [str(i + 1) for i in range(len(null))],
        {"|r|": null},
    )


def facts(record: Record) -> dict[str, str]:
    found = record["tables"][VERSION][OUTCOME]
    if not found:
        return {
            "absent": record["absent"].get(f"tables.{VERSION}.{OUTCOME}", "the spectra or the attention are missing")
        }
    r = found["descriptors"][found["best"]]["r"]
    return {
        "absent": "",
        "heads": number(found["heads"]),
        "best": f"{NAMES[found['best']]} ({found['best']})",
        "pooled": number(r["pooled"]),
        "within": number(r["within"]),
        "p": number(found["best_shift_p"]),
    }


def published(record: Record) -> list[Comparison]:
    old, new = (record["tables"][version][OUTCOME] for version in ("published", VERSION))
    if not old or not new:
        return []
    gained = record["tables"]["gained"][OUTCOME]
    rows = [
        Comparison(
            quantity="Best single predictor of entropy",
            published=_best(old) + ", from the spectrum of W_k W_qᵀ",
            corrected=_best(new) + ", from that of g",
        ),
        Comparison(
            quantity="The same with the gains folded in",
            published="not asked; under q/k norms the stored scale of W_q is free",
            corrected=_best(gained) if gained else "undefined for this model",
        ),
    ]
    before, after = old["regressions"]["published"], new["regressions"]["corrected"]
    if before and after:
        inflation = (
            f"largest variance inflation {number(max(before['vif']))}" if before["vif"] else "predictors collinear"
        )
        rows.append(
            Comparison(
                quantity="Regression of entropy on the descriptors",
                published=f"R² {number(before['r2'])} in the sample; {inflation}, since anisotropy is d over rank_eff",
                corrected=(
                    f"R² {number(after['r2_out_of_sample'])} on layers left out ({number(after['r2'])} in the "
                    "sample), without anisotropy"
                ),
            )
        )
    return rows


def _best(found: Record) -> str:
    r = found["descriptors"][found["best"]]["r"]
    return f"{found['best']}: r {number(r['pooled'])} pooled, {number(r['within'])} within layers"


SECTION = Section(
    name="head_geometry",
    question="Does a head’s spectrum predict its attention entropy?",
    short="Spectrum and entropy",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "A correlation over heads is no mechanism: a larger g spreads the logits and lowers the entropy by "
        "arithmetic alone.",
        "Entropy is taken on one text; the spectrum knows nothing of it.",
    ),
)
