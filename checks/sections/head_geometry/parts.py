"""Figures of `head_geometry`: each descriptor pooled, within and between layers, and the best of seven by chance."""

from collections.abc import Sequence

from checks.figures import axes
from checks.figures.bars import Series, dots
from checks.figures.geometry import Figure, Key, Panel, Table, Value
from checks.figures.numbers import number
from checks.figures.plots import Plot, binned
from checks.sections.head_geometry.scatter import NAMES, OUTCOME, VERSIONS
from checks.sections.section import Record, table

PARTS = {
    "pooled": Series(name="pooled over all heads", tone="s6", shape="diamond"),
    "within": Series(name="within layers", tone="s0", shape="circle"),
    "between": Series(name="between layers", tone="s1", shape="square"),
}
STORED = Series(name="pooled, as stored", tone="s7", shape="ring")
THIRDS = ("first", "middle", "last")  # of the depth
BINS = 20  # of the null's histogram


def parts(record: Record, version: str) -> Figure:
    association = record["tables"][version][OUTCOME]
    stored = record["tables"]["exact"][OUTCOME] if version != "exact" else None
    known = {name: a for name in NAMES if (a := association["descriptors"].get(name))}
    values = {NAMES[name]: {part: (a["r"][part], a["r_interval"][part]) for part in PARTS} for name, a in known.items()}
    for name in known if stored else ():
        if other := stored["descriptors"].get(name):
            values[NAMES[name]]["stored"] = (other["r"]["pooled"], other["r_interval"]["pooled"])
    series = PARTS | ({"stored": STORED} if stored else {})
    best = association["best"]
    finding = f"Best of seven: {NAMES[best]}, |r| {number(association['best_abs_r'])} pooled."
    return Figure(
        id="head_geometry-parts",
        caption=(
            f"Correlation of every descriptor, {VERSIONS[version]}, with entropy: over all heads, inside layers, and "
            "between the means of layers, with 90 % intervals; without an association all lie around zero. The "
            "histogram is what the best of seven reaches by chance, with whole layers shifted and reversed, which "
            "keeps the drift over depth."
        ),
        panels=(
            dots(
                values,
                series,
                x=axes.fixed(-1, 1, label="Pearson r with entropy"),
                title="Seven descriptors of a spectrum",
                measure="of g = W_kᵀ W_q",
                desc=finding,
                levels=(0.0,),
            ),
            _null(association),
        ),
        keys=tuple(Key(name=s.name, tone=s.tone, kind="mark", shape=s.shape) for s in series.values()),
        tables=(
            table("Correlation with entropy", "descriptor", list(values), _columns(list(known.values()))),
            *_regression_tables(association),
        ),
    )


def _columns(associations: Sequence[Record]) -> dict[str, list[Value]]:
    """Correlations, their probabilities under chance and their thirds of the depth, one row a descriptor."""
    columns: dict[str, list[Value]] = {s.name: [a["r"][part] for a in associations] for part, s in PARTS.items()}
    columns |= {
        "Spearman, pooled": [a["spearman"]["pooled"] for a in associations],
        "Spearman, within": [a["spearman"]["within"] for a in associations],
        "p, layers shifted": [a["shift_p"] for a in associations],
        "p, Holm": [a["shift_p_holm"] for a in associations],
        "p, heads permuted": [a["within_p"] for a in associations],
        "p, Holm ": [a["within_p_holm"] for a in associations],
    }
    thirds = {f"r, {name} third": [a["thirds"][i] for a in associations] for i, name in enumerate(THIRDS)}
    return columns | thirds


def _regression_tables(association: Record) -> list[Table]:
    tables = []
    for name, regression in association["regressions"].items():
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


def _null(association: Record) -> Panel:
    null, observed = association["shift_null"], association["best_abs_r"]
    counts = binned(null, BINS)
    y = axes.fixed(0, 1.1 * max(counts), label="rearrangements of whole layers")
    plot = Plot(x=axes.fixed(0, 1, label="largest |r| of the seven"), y=y)
    plot.histogram(counts, "s7 bar")
    plot.border(observed, "s1 strong")
    plot.beside(observed, y.high * 0.93, f"observed {number(observed)}")
    # A share would read like a chance level where it is the least that so few arrangements can give.
    count = 1 + len(null)  # and the model's own
    reaching = round(association["best_shift_p"] * count)
    finding = f"{reaching} of {count} arrangements, the model’s own among them, reach the observed {number(observed)}."
    return plot.panel("Chance of the best of seven", finding)
