"""Figures of `schedule_fit`: which form the evidence goes to, and two temperatures."""

import math
import statistics
from collections.abc import Sequence

from checks.figures import axes
from checks.figures.bars import share_words, stacked
from checks.figures.geometry import Figure, Key, Value
from checks.figures.labels import tips
from checks.figures.numbers import number, percent
from checks.figures.plots import Plot
from checks.sections.schedule_fit.forms import FORMS, LAWS, ONE, TEMPERATURES, fitted_tracks
from checks.sections.section import Record, layer_names, table


def weights(record: Record) -> Figure | None:
    temperatures = {TEMPERATURES[n]: t for n, t in fitted_tracks(record["temperature"]).items()}
    panels, used = [], []
    subjects = ((fitted_tracks(record["families"]), ONE, "Norms"), (temperatures, LAWS, "Temperatures"))
    for tracks, forms, title in subjects:
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
    every = fitted_tracks(record["families"]) | temperatures
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


def temperature(record: Record) -> Figure | None:
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
