"""Figures of `schedule_fit`: tracks over depth and the forms fitted to them."""

import math

from checks.figures import axes
from checks.figures.geometry import Figure, Key, Panel, Table
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.figures.rows import Track, aligned
from checks.sections.schedule_fit.evidence import FORMS, best_published, fitted_tracks, r2, weights
from checks.sections.section import Record, layer_names, table


def figures(record: Record) -> dict[str, Figure]:
    drawn = {
        "main": _main(record),
        "families": _families(record),
        "weights": weights(record),
    }
    return {name: figure for name, figure in drawn.items() if figure}


def _main(record: Record) -> Figure | None:
    """The input gain and the measured temperature, with best and published form and residuals beneath."""
    subjects = (
        ("Norm of the input gain", record["families"].get("input_ln")),
        ("Measured temperature", record["temperature"]["measured"]),
        ("Temperature as published", record["temperature"].get("published")),
    )
    panels, tables = [], []
    for title, track in subjects:
        if not track or track["status"] != "fitted":
            continue
        panels.append(_with_residuals(title, track))
        best, old = track["best_form"], best_published(track)
        columns = {
            "value": track["track"],
            f"best, {FORMS[best].name}": track["corrected"][best]["fitted"],
            f"published, {FORMS[old].name}": track["fits"][old]["fitted"],
        }
        tables.append(table(f"{title} and its fits", "layer", layer_names(len(track["track"])), columns))
        tables.append(_fit_table(title, track))
    if not panels:
        return None
    return Figure(
        id="schedule_fit-main",
        caption=(
            "Each track with the form that AICc prefers and with the one that the published comparison, R² without a "
            "penalty for parameters, would choose; what the preferred form leaves stands beneath. The published "
            "temperature is a ratio of stored gains."
        ),
        panels=tuple(panels),
        keys=(
            Key(name="track", tone="s6", kind="mark"),
            Key(name="best by AICc", tone="s0"),
            Key(name="best as published", tone="s1", kind="dash"),
        ),
        tables=tuple(tables),
        size="third",
    )


def _with_residuals(title: str, track: Record) -> Panel:
    values, best, old = track["track"], track["best_form"], best_published(track)
    fitted, older = track["corrected"][best]["fitted"], track["fits"][old]["fitted"]
    count = len(values)
    residuals = [math.log(v / f) for v, f in zip(values, fitted, strict=True)]
    rest = Plot(
        x=axes.layers(count),
        y=axes.linear(residuals, label="ln(track / best form)", include=(0.0,), count=4),
        height=104,
        margin=45,
    )
    rest.level(0, "zero", dash=False)
    rest.points(range(count), residuals, "s6")
    form = track["corrected"][best]
    below = rest.panel(
        "Residuals",
        f"Root mean square {number(form['rmse_log'])}, largest {number(form['largest_residual'])} in layer "
        f"{form['largest_residual_layer']}.",
    )
    plot = Plot(
        x=axes.layers(count),
        y=axes.linear(
            [*values, *fitted, *older],
            label=f"best: {FORMS[best].name}; published: {FORMS[old].name}",
        ),
        margin=45,
    )
    plot.line(range(count), older, "s1", dash=True)
    plot.line(range(count), fitted, "s0")
    plot.points(range(count), values, "s6")
    weight = f", Akaike weight {number(form['weight'])}" if form["weight"] is not None else ""
    finding = (
        f"Best form: {FORMS[best].name}{weight}, R² {r2(form['r2_log'])} on the log scale. Published "
        f"choice: {FORMS[old].name}, R² {r2(track['fits'][old]['r2'])}."
    )
    return plot.panel(title, finding, below=(below,))


def _fit_table(title: str, track: Record) -> Table:
    fits = track["corrected"]
    order = [form for form in FORMS if form in fits]
    columns = {key: [fits[form][name] for form in order] for key, name in FIT_COLUMNS.items()}
    return table(
        f"{title}: every form by least squares of the logarithm", "form", [FORMS[f].name for f in order], columns
    )


FIT_COLUMNS = {
    "parameters": "n_parameters",
    "AICc": "aicc",
    "Akaike weight": "weight",
    "R² (log)": "r2_log",
    "R² (linear)": "r2_linear",
    "RMSE (log)": "rmse_log",
    "Durbin–Watson": "durbin_watson",
}


def _families(record: Record) -> Figure | None:
    tracks = fitted_tracks(record["families"])
    if not tracks:
        return None
    rows = [
        Track(
            name=f"{name}: {FORMS[track['best_form']].name}",
            family=name,
            values=track["track"],
            other=track["corrected"][track["best_form"]]["fitted"],
        )
        for name, track in tracks.items()
    ]
    return Figure(
        id="schedule_fit-families",
        caption=(
            "The stored norm of every family over depth, with its best form by AICc. A constant is a form too, and "
            "often the best."
        ),
        rows=aligned(rows, max(len(row.values) for row in rows)),
        keys=(Key(name="track", tone="s0"), Key(name="best form", tone="s1", kind="dash")),
    )
