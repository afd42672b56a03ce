"""Figures of `null_residual`: likeness of adjacent layers, family by family."""

import statistics

from analyses.weights.architectures import FAMILIES, GAINS, MATRICES
from checks.figures import axes
from checks.figures.geometry import QUARTER, Figure, Key, Panel, Value
from checks.figures.labels import tips
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.sections.null_residual.scale_modes import modes, scales
from checks.sections.section import Record, pair_names, table

BAND = 2  # standard deviations on either side of chance that are shaded


def figures(record: Record) -> dict[str, Figure]:
    drawn = {
        "cosine": _cosine(record),
        "matched": _matched(record),
        "rank": _rank(record),
        "scales": scales(record),
        "modes": modes(record),
    }
    return {name: figure for name, figure in drawn.items() if figure}


def column(record: Record, family: str, key: str) -> list[Value]:
    """One number of one family over the pairs of layers."""
    return [pair["families"][family][key] for pair in record["pair_results"]]


def families_of(record: Record) -> list[str]:
    return [family for family in FAMILIES if family in record["summary"]]


def _band(record: Record, family: str) -> tuple[list[Value], list[Value]]:
    null, sd = column(record, family, "null_cos"), column(record, family, "null_sd")
    reach = [None if m is None or s is None else BAND * s for m, s in zip(null, sd, strict=True)]
    low = [None if r is None else max(-1.0, m - r) for m, r in zip(null, reach, strict=True)]
    high = [None if r is None else min(1.0, m + r) for m, r in zip(null, reach, strict=True)]
    return low, high


def _cosine(record: Record) -> Figure:
    count = len(record["pair_results"])
    families, names = families_of(record), pair_names(count)
    panels: list[Panel] = []
    for group in (MATRICES, GAINS):
        members = [family for family in families if family in group]
        shown = [v for f in members for v in (*column(record, f, "cos"), *_band(record, f)[0], *_band(record, f)[1])]
        # One vertical axis for all projections, another for all gains, so that panels compare.
        y = axes.linear(shown, label="cosine with the next layer", include=(0.0,) if group is MATRICES else ())
        for family in members:
            cos, (low, high) = column(record, family, "cos"), _band(record, family)
            plot = Plot(x=axes.layers(count), y=y, width=QUARTER, height=138)
            plot.band(range(count), low, high, "chance", tip=f"chance: mean ± {BAND} standard deviations")
            plot.line(range(count), cos, "s0")
            plot.points(range(count), cos, "s0", shape="dot", tips=tips([f"layers {n}" for n in names], cos))
            panels.append(plot.panel(family, _cosine_finding(record, family)))
    return Figure(
        id="null_residual-cosine",
        caption=(
            "Cosine of each layer’s tensor with the next layer’s, family by family. The shaded band is what a "
            "random matching of "
            f"the two tensors’ entries gives, ± {BAND} standard deviations. Projections share one vertical "
            "axis, norm gains another."
        ),
        panels=tuple(panels),
        keys=(Key(name="measured", tone="s0"), Key(name=f"chance ± {BAND} sd", tone="chance", kind="area")),
        tables=(
            table("Cosine by pair of layers", "layers", names, {f: column(record, f, "cos") for f in families}),
            table(
                "Its chance level (mean under a random matching of entries)",
                "layers",
                names,
                {f: column(record, f, "null_cos") for f in families},
            ),
        ),
        size="quarter",
    )


def _cosine_finding(record: Record, family: str) -> str:
    median, cos, (low, high) = (
        record["summary"][family]["median_cos"],
        column(record, family, "cos"),
        _band(record, family),
    )
    judged = [(c, a, b) for c, a, b in zip(cos, low, high, strict=True) if None not in (c, a, b)]
    outside = sum(not a <= c <= b for c, a, b in judged)
    return f"{family}: median cosine {number(median)}; {outside} of {len(judged)} pairs lie outside the chance band."


ROLES = {
    "gate": "neurons, scored on gate",
    "up": "neurons, scored on up",
    "down": "neurons, scored on down",
    "qk": "heads, scored on q and k",
    "vo": "heads, scored on v and o",
}


def _matched(record: Record) -> Figure | None:
    pairs = record["pair_results"]
    roles = [role for role in ROLES if any(pair["matched"].get(role) is not None for pair in pairs)]
    if not roles:
        return None
    count, names = len(pairs), pair_names(len(pairs))
    tracks, nulls = (
        {role: [pair[key][role] for pair in pairs] for role in roles} for key in ("matched", "matched_null")
    )
    y = axes.linear(
        [v for t in (*tracks.values(), *nulls.values()) for v in t],
        label="mean cosine of matched units",
        include=(0.0,),
    )
    panels = []
    for role, track in tracks.items():
        plot = Plot(x=axes.layers(count), y=y, width=QUARTER, height=124)
        plot.level(0, "zero", dash=False)
        plot.line(range(count), nulls[role], "s1", dash=True)
        plot.line(range(count), track, "s0")
        plot.specks(range(count), track, "s0")
        median = statistics.median(abs(v) for v in track if v is not None)
        panels.append(plot.panel(ROLES[role], f"{ROLES[role]}: median |cosine| {number(median)}."))
    columns = {f"{role}{word}": t[role] for role in roles for word, t in (("", tracks), (", chance", nulls))}
    return Figure(
        id="null_residual-matched",
        caption=(
            "The same after the best matching of neurons and of heads, with each matrix scored on a matching "
            "that was found on the others. "
            "Chance: the same with one layer’s coordinates scrambled."
        ),
        panels=tuple(panels),
        keys=(Key(name="measured", tone="s0"), Key(name="chance", tone="s1", kind="dash")),
        tables=(table("Mean cosine of matched units", "layers", names, columns),),
        size="quarter",
    )


def _rank(record: Record) -> Figure:
    count, names = len(record["pair_results"]), pair_names(len(record["pair_results"]))
    families = [f for f in families_of(record) if f in MATRICES]
    panels = []
    for family in families:
        side = record["sides"][family]
        observed, haar, shuffled = (
            column(record, family, k) for k in ("resid_eff_rank", "eff_rank_haar", "eff_rank_shuffled")
        )
        plot = Plot(
            x=axes.layers(count),
            y=axes.fixed(0, side * 1.04, label=f"effective rank, of {side} at most"),
            width=QUARTER,
            height=138,
        )
        plot.line(range(count), shuffled, "s7", dash=True)
        plot.line(range(count), haar, "s1", dash=True)
        plot.line(range(count), observed, "s0")
        plot.specks(range(count), observed, "s0")
        ratio = record["summary"][family]["median_eff_rank_ratio"]
        panels.append(
            plot.panel(
                family,
                f"{family}: the residual fills {number(ratio)} of the directions that its two matrices allow, "
                "in the median pair.",
            )
        )
    columns = {}
    for family in families:
        columns[f"{family} residual"] = column(record, family, "resid_eff_rank")
        columns[f"{family} Haar"] = column(record, family, "eff_rank_haar")
    return Figure(
        id="null_residual-rank",
        caption=(
            "Effective rank of the difference between a layer’s normalised matrix and the next one’s. The "
            "fair chance level keeps both "
            "layers’ singular values and makes their singular vectors random (Haar); shuffling the "
            "difference’s entries gives a "
            "higher one, which no trained matrix reaches, since it is itself of low rank."
        ),
        panels=tuple(panels),
        keys=(
            Key(name="residual", tone="s0"),
            Key(name="chance: own spectra, random vectors", tone="s1", kind="dash"),
            Key(name="chance: entries shuffled", tone="s7", kind="dash"),
        ),
        tables=(table("Effective rank of the residual, and its Haar chance level", "layers", names, columns),),
        size="quarter",
    )
