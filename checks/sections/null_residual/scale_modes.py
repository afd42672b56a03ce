"""Figures of `null_residual`: the norm of every family over depth, and the modes that the norms share."""

from analyses.weights.architectures import FAMILIES, GAINS, MATRICES
from checks.figures import axes
from checks.figures.geometry import Figure, Key, Panel, Table
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.figures.rows import Track, aligned
from checks.sections.section import Record, layer_names, table


def scales(record: Record) -> Figure:
    tracks = {f: t for f in FAMILIES if (t := record["scales"].get(f)) and min(t) > 0}
    count = record["pair_results"][-1]["L_next"] + 1
    rows = [
        Track(
            name=family,
            family=family,
            group="projections" if family in MATRICES else "gains",
            values=tracks[family],
            log=True,
        )
        for family in sorted(tracks, key=lambda family: family in GAINS)
    ]
    return Figure(
        id="null_residual-scales",
        caption="The stored norm of every family over depth, each on a logarithmic scale of its own.",
        rows=aligned(rows, count),
        tables=(table("Frobenius norm by layer", "layer", layer_names(count), tracks),),
    )


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
    )
    plot.line(modes, pca["walk_95"], "s1", dash=True)
    plot.line(modes, pca["parallel_95"], "s7", dash=True)
    plot.line(modes, explained, "s0")
    plot.points(modes, explained, "s0")
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
