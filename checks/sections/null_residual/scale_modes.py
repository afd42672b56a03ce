"""Figures of `null_residual`: the norm of every family over depth, and the modes that the norms share."""

import math
import statistics

from analyses.weights.architectures import FAMILIES, GAINS, MATRICES
from checks.figures import axes
from checks.figures.geometry import Figure, Key, Panel, Table
from checks.figures.labels import tips
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.sections.section import Record, layer_names, table

TONES = ("s0", "s1", "s2", "s3", "s4", "s5", "s7", "s6")


def scales(record: Record) -> Figure:
    tracks = {f: t for f in FAMILIES if (t := record["scales"].get(f)) and min(t) > 0}
    count = record["pair_results"][-1]["L_next"] + 1
    relative = {f: [v / math.exp(statistics.fmean(map(math.log, t))) for v in t] for f, t in tracks.items()}
    y = axes.logarithmic([v for t in relative.values() for v in t], label="‖W‖ / its mean over depth (log axis)")
    groups = {"Projections": [f for f in tracks if f in MATRICES], "Gains": [f for f in tracks if f in GAINS]}
    return Figure(
        id="null_residual-scales",
        caption="The norm of every family over depth, relative to its own mean, all on one vertical axis.",
        panels=tuple(
            _tracks(title, {f: relative[f] for f in group}, tracks, y) for title, group in groups.items() if group
        ),
        tables=(table("Frobenius norm by layer", "layer", layer_names(count), tracks),),
    )


def _tracks(title: str, relative: Record, tracks: Record, y: axes.Axis) -> Panel:
    """Lines that carry their names at their right ends; every other one is dashed."""
    count = len(next(iter(relative.values())))
    plot = Plot(x=axes.layers(count), y=y, height=215, room=max(map(len, relative)))
    plot.level(1, "zero", dash=False)
    for i, (family, track) in enumerate(relative.items()):
        plot.line(range(count), track, TONES[i % len(TONES)], dash=i % 2 == 1, label=family)
    widest = max(relative, key=lambda f: max(tracks[f]) / min(tracks[f]))
    low, high = min(tracks[widest]), max(tracks[widest])
    return plot.panel(title, f"The norm of {widest} varies most, from {number(low)} to {number(high)}.")


def modes(record: Record) -> Figure | None:
    raw, standardised = _components(record)
    screes = ((standardised, "Every track scaled to unit variance"), (raw, "Tracks as they are"))
    panels = [_scree(pca, title) for pca, title in screes if pca and pca["explained"]]
    if not panels:
        return None
    return Figure(
        id="null_residual-modes",
        caption=(
            "Share of the log-tracks’ variance that each mode explains, beside what chance reaches in one "
            "case of twenty: tracks shuffled over layers, "
            "and random walks made of the tracks’ own steps. As they are, one loud family alone can make a first mode."
        ),
        panels=tuple(panels),
        keys=(
            Key(name="measured", tone="s0"),
            Key(name="random walks, 95 % level", tone="s1", kind="dash"),
            Key(name="shuffled tracks, 95 % level", tone="s7", kind="dash"),
        ),
        tables=tuple(_scree_tables(record)),
    )


def _components(record: Record) -> tuple[Record, Record | None]:
    """Shares of variance by mode and their chance levels: of the log-tracks as they are, and of unit variance."""
    names = ("explained", "parallel_95", "walk_95")
    return {name: record[f"scale_pca_{name}"] for name in names}, record["scale_pca_standardised"]


def _scree(pca: Record, title: str) -> Panel:
    explained, modes = pca["explained"], list(range(1, len(pca["explained"]) + 1))
    plot = Plot(
        x=axes.layers(len(modes), label="mode", first=1),
        y=axes.fixed(0, 1.02, label="share of variance explained"),
        height=200,
    )
    plot.line(modes, pca["walk_95"], "s1", dash=True)
    plot.line(modes, pca["parallel_95"], "s7", dash=True)
    plot.line(modes, explained, "s0")
    plot.points(modes, explained, "s0", tips=tips([f"mode {m}" for m in modes], explained))
    finding = (
        f"The first mode explains {number(explained[0])}; shuffled tracks reach "
        f"{number(pca['parallel_95'][0])}, random walks {number(pca['walk_95'][0])}."
    )
    return plot.panel(title, finding)


def _scree_tables(record: Record) -> list[Table]:
    tables = []
    raw, standardised = _components(record)
    for name, pca in (("raw log-tracks", raw), ("standardised log-tracks", standardised)):
        if pca and pca["explained"]:
            columns = {
                "explained": pca["explained"],
                "shuffled, 95 %": pca["parallel_95"],
                "random walks, 95 %": pca["walk_95"],
            }
            tables.append(
                table(f"Share of variance by mode, {name}", "mode", layer_names(len(pca["explained"]) + 1)[1:], columns)
            )
    return tables
