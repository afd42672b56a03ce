"""Figures and words of `null_residual`: likeness of adjacent layers, and the scales of the families."""

import math
import statistics

from analyses.architectures import FAMILIES, GAINS, MATRICES
from checks import axes
from checks.figures import QUARTER, Figure, Key, Panel, Value
from checks.labels import tips
from checks.numbers import number
from checks.plots import Plot
from checks.section import Comparison, Record, Section, layer_names, pair_names, table

BAND = 2  # standard deviations on either side of chance that are shaded


def figures(record: Record) -> dict[str, Figure]:
    drawn = {
        "cosine": _cosine(record),
        "matched": _matched(record),
        "rank": _rank(record),
        "scales": _scales(record),
        "modes": _modes(record),
    }
    return {name: figure for name, figure in drawn.items() if figure}


def _column(record: Record, family: str, key: str) -> list[Value]:
    """One number of one family over the pairs of layers."""
    return [pair["families"][family][key] for pair in record["pair_results"]]


def _families(record: Record) -> list[str]:
    return [family for family in FAMILIES if family in record["summary"]]


def _band(record: Record, family: str) -> tuple[list[Value], list[Value]]:
    null, sd = _column(record, family, "null_cos"), _column(record, family, "null_sd")
    reach = [None if m is None or s is None else BAND * s for m, s in zip(null, sd, strict=True)]
    low = [None if r is None else max(-1.0, m - r) for m, r in zip(null, reach, strict=True)]
    high = [None if r is None else min(1.0, m + r) for m, r in zip(null, reach, strict=True)]
    return low, high


def _cosine(record: Record) -> Figure:
    count = len(record["pair_results"])
    families, names = _families(record), pair_names(count)
    panels: list[Panel] = []
    for group in (MATRICES, GAINS):
        members = [family for family in families if family in group]
        shown = [v for f in members for v in (*_column(record, f, "cos"), *_band(record, f)[0], *_band(record, f)[1])]
        # One vertical axis for all projections, another for all gains, so that panels compare.
        y = axes.linear(shown, label="cosine with the next layer", include=(0.0,) if group is MATRICES else ())
        for family in members:
            cos, (low, high) = _column(record, family, "cos"), _band(record, family)
            plot = Plot(x=axes.layers(count), y=y, width=QUARTER, height=170)
            plot.band(range(count), low, high, "chance", tip=f"chance: mean ± {BAND} standard deviations")
            plot.line(range(count), cos, "s0")
            plot.points(range(count), cos, "s0", shape="dot", tips=tips([f"layers {n}" for n in names], cos))
            panels.append(plot.panel(family, _cosine_found(record, family)))
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
            table("Cosine by pair of layers", "layers", names, {f: _column(record, f, "cos") for f in families}),
            table(
                "Its chance level (mean under a random matching of entries)",
                "layers",
                names,
                {f: _column(record, f, "null_cos") for f in families},
            ),
        ),
        size="quarter",
    )


def _cosine_found(record: Record, family: str) -> str:
    median, cos, (low, high) = (
        record["summary"][family]["median_cos"],
        _column(record, family, "cos"),
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
        plot = Plot(x=axes.layers(count), y=y, width=QUARTER, height=150)
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
    families = [f for f in _families(record) if f in MATRICES]
    panels = []
    for family in families:
        side = record["sides"][family]
        observed, haar, shuffled = (
            _column(record, family, k) for k in ("resid_eff_rank", "eff_rank_haar", "eff_rank_shuffled")
        )
        plot = Plot(
            x=axes.layers(count),
            y=axes.fixed(0, side * 1.04, label=f"effective rank, of {side} at most"),
            width=QUARTER,
            height=170,
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
        columns[f"{family} residual"] = _column(record, family, "resid_eff_rank")
        columns[f"{family} Haar"] = _column(record, family, "eff_rank_haar")
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


def _scales(record: Record) -> Figure:
    tracks = {f: t for f in FAMILIES if (t := record["scales"].get(f)) and min(t) > 0}
    count = record["pair_results"][-1]["L_next"] + 1
    relative = {f: [v / math.exp(statistics.fmean(map(math.log, t))) for v in t] for f, t in tracks.items()}
    y = axes.logarithmic([v for t in relative.values() for v in t], label="‖W‖ / its mean (log axis)")
    panels = []
    for family, track in relative.items():
        plot = Plot(x=axes.layers(count), y=y, width=QUARTER, height=140)
        plot.level(1, "zero", dash=False)
        plot.line(range(count), track, "s0")
        plot.specks(range(count), track, "s0")
        panels.append(
            plot.panel(family, f"{family}: ‖W‖ from {number(min(tracks[family]))} to {number(max(tracks[family]))}.")
        )
    return Figure(
        id="null_residual-scales",
        caption="The norm of every family over depth, relative to its own mean, all on one vertical axis.",
        panels=tuple(panels),
        tables=(table("Frobenius norm by layer", "layer", layer_names(count), tracks),),
        size="quarter",
    )


def _modes(record: Record) -> Figure | None:
    raw = {
        "explained": record["scale_pca_explained"],
        "parallel_95": record["scale_pca_parallel_95"],
        "walk_95": record["scale_pca_walk_95"],
    }
    screes = ((record["scale_pca_standardised"], "Every track scaled to unit variance"), (raw, "Tracks as they are"))
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


def _scree(pca: Record, title: str) -> Panel:
    explained, modes = pca["explained"], list(range(1, len(pca["explained"]) + 1))
    plot = Plot(
        x=axes.layers(len(modes), label="mode", first=1), y=axes.fixed(0, 1.02, label="share of variance explained")
    )
    plot.line(modes, pca["walk_95"], "s1", dash=True)
    plot.line(modes, pca["parallel_95"], "s7", dash=True)
    plot.line(modes, explained, "s0")
    plot.points(modes, explained, "s0", tips=tips([f"mode {m}" for m in modes], explained))
    found = (
        f"The first mode explains {number(explained[0])}; shuffled tracks reach "
        f"{number(pca['parallel_95'][0])}, random walks {number(pca['walk_95'][0])}."
    )
    return plot.panel(title, found)


def _scree_tables(record: Record) -> list:
    tables = []
    raw = {
        "explained": record["scale_pca_explained"],
        "parallel_95": record["scale_pca_parallel_95"],
        "walk_95": record["scale_pca_walk_95"],
    }
    for name, pca in (("raw log-tracks", raw), ("standardised log-tracks", record["scale_pca_standardised"])):
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


def facts(record: Record) -> dict[str, str]:
    summary = record["summary"]
    cosines = [abs(s["median_cos"]) for f, s in summary.items() if f in MATRICES and s["median_cos"] is not None]
    nulls = [v for f in summary if f in GAINS for v in _column(record, f, "null_cos") if v is not None]
    return {
        "pairs": number(len(record["pair_results"])),
        "largest_cos": number(max(cosines, default=None)),
        "gain_chance": number(statistics.median(nulls)) if nulls else "",
    }


def published(record: Record) -> list[Comparison]:
    summary = record["summary"]
    rows = [
        Comparison(
            quantity=f"{family}: share of a layer that a scalar multiple of the one before explains",
            published=(
                f"improve_frac = {number(summary[family]['improve_frac'])}; it is 0.293 for unrelated layers "
                "and 0 for identical ones"
            ),
            corrected=f"mean cos² = {number(summary[family]['scalar_explained'])}",
        )
        for family in ("q_proj", "down_proj", "input_ln")
        if family in summary and summary[family]["improve_frac"] is not None
    ]
    gains = [f for f in GAINS if f in summary and summary[f]["mean_resid"] is not None]
    if gains:
        rows.append(
            Comparison(
                quantity="Residual of norm gains, against chance",
                published=", ".join(f"{f} {number(summary[f]['mean_resid'])}" for f in gains)
                + f"; all against √2 = {number(math.sqrt(2))}",
                corrected="against "
                + ", ".join(f"{f} {number(summary[f]['mean_null_resid'])}" for f in gains)
                + ": gains are positive, so unrelated ones are alike already",
            )
        )
    return [
        *rows,
        Comparison(
            quantity="Effective rank of the residual",
            published="left empty, because the singular values took too long",
            corrected="exact for every pair, from the symmetric eigenvalues of the smaller Gram matrix",
        ),
    ]


SECTION = Section(
    name="null_residual",
    question="How alike are adjacent layers?",
    short="Adjacent layers",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "Tensors are compared entry by entry in their stored coordinates. Reordering the neurons of one layer "
        "makes every one of these "
        "cosines small and leaves the model’s function alone; only the matched comparison is free of that.",
        "A small cosine says that two layers’ weights are unrelated as arrays, not that the layers compute "
        "unrelated things.",
    ),
)
