"""Figures and words of `schedule_fit`: tracks over depth and the forms fitted to them."""

import math
import statistics
from collections.abc import Mapping, Sequence

from analyses.architectures import FAMILIES
from checks import axes
from checks.figures import QUARTER, Figure, Key, Panel, Value
from checks.labels import tips
from checks.numbers import number, percent
from checks.plots import Plot
from checks.rows import Series, share_words, stacked
from checks.section import Comparison, Record, Section, layer_names, table

FORMS = {
    "constant": Series(name="constant", tone="s7"),
    "linear": Series(name="linear", tone="s0"),
    "power": Series(name="power", tone="s2"),
    "exponential": Series(name="exponential", tone="s1"),
    "offset_power": Series(name="offset power", tone="s4"),
    "two_piece": Series(name="two pieces", tone="s3"),
    "kirkpatrick": Series(name="exponential (Kirkpatrick)", tone="s1"),
    "hajek": Series(name="Hajek, c/ln(ℓ+2)", tone="s2"),
    "hajek_c2": Series(name="Hajek, c/ln(ℓ+c₂)", tone="s4"),
}
LAWS = ("constant", "kirkpatrick", "linear", "hajek", "hajek_c2")
ONE = ("constant", "linear", "power", "exponential", "offset_power", "two_piece")
TEMPERATURES = {"measured": "measured temperature", "published": "temperature as published"}


def figures(record: Record) -> dict[str, Figure]:
    drawn = {
        "main": _main(record),
        "families": _families(record),
        "weights": _weights(record),
        "temperature": _temperature(record),
    }
    return {name: figure for name, figure in drawn.items() if figure}


def _fitted(tracks: Mapping[str, Record]) -> dict[str, Record]:
    order = [*FAMILIES, *TEMPERATURES]
    return {name: tracks[name] for name in order if name in tracks and tracks[name]["status"] == "fitted"}


def best_published(track: Record) -> str:
    """The form with the largest published R²: that script's winner."""
    return max(sorted(track["fits"]), key=lambda form: track["fits"][form]["r2"])


def _main(record: Record) -> Figure | None:
    """The input gain and the measured temperature, with best and published form and residuals beneath."""
    subjects = (
        ("Norm of the input gain", record["families"].get("input_ln")),
        ("Measured temperature", record["temperature"]["measured"]),
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
            "Each track with the form that AICc prefers and with the one that the published comparison, R² "
            "without a penalty for "
            "parameters, would choose; what the preferred form leaves is drawn beneath."
        ),
        panels=tuple(panels),
        keys=(
            Key(name="track", tone="s6", kind="mark"),
            Key(name="best by AICc", tone="s0"),
            Key(name="best as published", tone="s1", kind="dash"),
        ),
        tables=tuple(tables),
    )


def _with_residuals(title: str, track: Record) -> Panel:
    values, best, old = track["track"], track["best_form"], best_published(track)
    fitted, older = track["corrected"][best]["fitted"], track["fits"][old]["fitted"]
    count = len(values)
    residuals = [math.log(v / f) for v, f in zip(values, fitted, strict=True)]
    rest = Plot(
        x=axes.layers(count),
        y=axes.linear(residuals, label="ln(track / best form)", include=(0.0,), count=4),
        height=125,
        margin=52,
    )
    rest.level(0, "zero", dash=False)
    rest.points(range(count), residuals, "s6", shape="dot", tips=tips([f"layer {n}" for n in range(count)], residuals))
    said = track["corrected"][best]
    below = rest.panel(
        "Residuals",
        f"Root mean square {number(said['rmse_log'])}, largest {number(said['largest_residual'])} in layer "
        f"{said['largest_residual_layer']}.",
    )
    plot = Plot(
        x=axes.layers(count),
        y=axes.linear(
            [*values, *fitted, *older],
            label=f"best: {FORMS[best].name}, {said['formula']}; published: {FORMS[old].name}",
        ),
        height=230,
        margin=52,
    )
    plot.line(range(count), older, "s1", dash=True)
    plot.line(range(count), fitted, "s0")
    plot.points(range(count), values, "s6", shape="dot", tips=tips([f"layer {n}" for n in range(count)], values))
    weight = f", Akaike weight {number(said['weight'])}" if said["weight"] is not None else ""
    found = (
        f"Best form: {FORMS[best].name}{weight}, R² {number(said['r2_log'])} on the log scale. Published "
        f"choice: {FORMS[old].name}, R² {number(track['fits'][old]['r2'])}."
    )
    return plot.panel(title, found, below=(below,))


def _fit_table(title: str, track: Record):
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
    tracks = _fitted(record["families"])
    if not tracks:
        return None
    panels = []
    for name, track in tracks.items():
        count, best = len(track["track"]), track["best_form"]
        fitted = track["corrected"][best]["fitted"]
        plot = Plot(
            x=axes.layers(count),
            y=axes.linear([*track["track"], *fitted], label=f"‖W‖, {FORMS[best].name}", count=4),
            width=QUARTER,
            height=150,
        )
        plot.line(range(count), fitted, "s0")
        plot.specks(range(count), track["track"], "s6")
        panels.append(
            plot.panel(
                name,
                f"{name}: {FORMS[best].name} fits best, R² {number(track['corrected'][best]['r2_log'])} on the "
                "log scale.",
            )
        )
    return Figure(
        id="schedule_fit-families",
        caption=(
            "The norm of every family over depth, with its best form by AICc. A constant is a form too, and "
            "often the best."
        ),
        panels=tuple(panels),
        keys=(Key(name="track", tone="s6", kind="mark"), Key(name="best form", tone="s0")),
        size="quarter",
    )


def _weights(record: Record) -> Figure | None:
    temperatures = {TEMPERATURES[n]: t for n, t in _fitted(record["temperature"]).items()}
    panels, used = [], []
    for tracks, forms, title in ((_fitted(record["families"]), ONE, "Norms"), (temperatures, LAWS, "Temperatures")):
        if not tracks:
            continue
        shares = {
            name: {f: t["corrected"][f]["weight"] for f in forms if f in t["corrected"]} for name, t in tracks.items()
        }
        top = {name: max(parts, key=lambda f: parts[f] or 0.0) for name, parts in shares.items()}
        used += [f for f in forms if f not in used]
        found = "; ".join(f"{name}: {share_words(shares[name], top[name], FORMS[top[name]].name)}" for name in shares)
        panels.append(
            stacked(
                shares,
                FORMS,
                x=axes.fixed(0, 1, label="Akaike weight"),
                title=title,
                measure="weight of each form among all that were fitted",
                desc=found,
                beside={name: percent(shares[name][top[name]]) for name in shares},
                legend=tuple(Key(name=FORMS[f].name, tone=f"{FORMS[f].tone} bar", kind="area") for f in forms),
            )
        )
    if not panels:
        return None
    every = _fitted(record["families"]) | temperatures
    names = list(every)
    columns = {FORMS[f].name: [every[n]["corrected"].get(f, {}).get("weight") for n in names] for f in used}
    return Figure(
        id="schedule_fit-weights",
        caption=(
            "How much of the evidence goes to each form, by AICc; the number beside a bar is the largest "
            "weight. A bar of one colour is a decision, a bar of many is none."
        ),
        panels=tuple(panels),
        tables=(table("Akaike weights", "track", names, columns),),
    )


def _temperature(record: Record) -> Figure | None:
    tracks = {TEMPERATURES[n]: t["track"] for n, t in record["temperature"].items() if t["track"]}
    if not tracks:
        return None
    count = max(map(len, tracks.values()))
    relative = {name: _relative(track) for name, track in tracks.items()}
    y = axes.logarithmic(
        [v for t in relative.values() for v in t],
        label="temperature relative to its geometric mean over depth (log axis)",
    )
    plot = Plot(x=axes.layers(count), y=y, height=270, room=12)
    plot.level(1, "zero", dash=False)
    for tone, (name, track) in zip(("s0", "s1"), relative.items(), strict=False):
        plot.line(
            range(count),
            track,
            tone,
            dash=tone == "s1",
            label=name.removeprefix("temperature ").removesuffix(" temperature"),
        )
        plot.points(
            range(count), track, tone, shape="dot", tips=tips([f"{name}, layer {n}" for n in range(count)], track)
        )
    said = [
        f"{TEMPERATURES[n]}: rank correlation with depth {number(t['spearman'])}"
        for n, t in record["temperature"].items()
        if t["spearman"] is not None
    ]
    return Figure(
        id="schedule_fit-temperature",
        caption=(
            "The measured temperature, one over the mean spread of a layer’s logits, beside the published "
            "one, the first layer’s gain over this layer’s."
        ),
        panels=(plot.panel("Two temperatures", "; ".join(said) + "."),),
        tables=(table("Temperature by layer", "layer", layer_names(count), tracks),),
    )


def _relative(track: Sequence[Value]) -> list[Value]:
    mean = statistics.fmean(math.log(v) for v in track)
    return [v / math.exp(mean) for v in track]


def facts(record: Record) -> dict[str, str]:
    tracks = _fitted(record["families"])
    constant = [name for name, track in tracks.items() if track["best_form"] == "constant"]
    return {
        "layers": number(record["num_layers"]),
        "tracks": number(len(tracks)),
        "constant": number(len(constant)),
        "no_temperature": record["absent"].get("temperature.measured.*", "")
        if record["temperature"]["measured"]["status"] == "absent"
        else "",
    }


def published(record: Record) -> list[Comparison]:
    rows = []
    tracks = {"Norm of input_ln": record["families"].get("input_ln")} | {
        TEMPERATURES[n].capitalize(): t for n, t in record["temperature"].items()
    }
    for name, track in tracks.items():
        if not track or track["status"] != "fitted":
            continue
        old, best = best_published(track), track["best_form"]
        said = track["corrected"][best]
        weight = f", weight {number(said['weight'])}" if said["weight"] is not None else ""
        rows.append(
            Comparison(
                quantity=f"{name}: form",
                published=f"{FORMS[old].name}, R² {number(track['fits'][old]['r2'])}, with no penalty for parameters",
                corrected=f"{FORMS[best].name}, R² {number(said['r2_log'])} on the log scale{weight}",
            )
        )
    pieces = [(n, t["two_piece"]) for n, t in _fitted(record["families"]).items() if t["two_piece"]]
    won = sum(best_published(t) == "two_piece" for t in _fitted(record["families"]).values())
    if pieces:
        kept = sum(p["p"] <= 0.05 for _, p in pieces)
        rows.append(
            Comparison(
                quantity="Two pieces rather than one",
                published=f"{won} of {len(pieces)} tracks, on segments of two layers and more",
                corrected=(
                    f"{kept} of {len(pieces)} tracks, on segments of four and more, against noise and random walks"
                ),
            )
        )
    rows.append(
        Comparison(
            quantity="Attention temperature",
            published="γ₀/γ_ℓ from the input gain, which the projections can absorb without any change of the model",
            corrected="one over the mean standard deviation of the layer’s logits, measured",
        )
    )
    return rows


SECTION = Section(
    name="schedule_fit",
    question="Does a gain follow a schedule over depth?",
    short="Schedules",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "A form that fits is a description of this track, not a law that produced it; a random walk often has "
        "a smooth form too.",
        "Norms of gains and projections can be traded against each other without changing the model, so a "
        "schedule of one alone may be one of bookkeeping.",
    ),
)
