"""Figures and text of `head_grams`: the metric of each head, compared across layers."""

from collections.abc import Mapping, Sequence

from checks.figures import axes
from checks.figures.geometry import Figure, Key, Panel, Value
from checks.figures.heatmaps import Matrix, heatmap, sequential
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.sections.head_grams.folded import folded, sign_energy
from checks.sections.section import (
    Comparison,
    Record,
    Section,
    layer_names,
    median,
    pair_names,
    spread_by_layer,
    table,
)


def figures(record: Record) -> dict[str, Figure]:
    drawn = {
        "folded": folded(record),
        "similarity": _similarity(record),
        "curvature": _curvature(record),
        "overlap": _overlap(record) if record["overlap_by_distance"] is not None else None,
    }
    return {name: figure for name, figure in drawn.items() if figure}


def _off_diagonal(matrix: Sequence[Sequence[Value]]) -> list[float]:
    return [v for i, row in enumerate(matrix) for j, v in enumerate(row) if j < i and v is not None]


def _similarity(record: Record) -> Figure:
    index, matched = record["mean_abs_similarity"], record["mean_abs_similarity_matched"]
    shown = _off_diagonal(index) + _off_diagonal(matched)
    classes = sequential(0.0, max(shown, default=1.0))
    panels = []
    for matrix, title in ((index, "Heads paired by index"), (matched, "Heads at their best matching")):
        values = _off_diagonal(matrix)
        finding = (
            f"{title}: the median over pairs of layers is {number(median(values))}, the largest "
            f"{number(max(values, default=None))}."
        )
        panels.append(
            heatmap(
                Matrix(values=matrix, rows="layer", columns="layer", lower=True),
                classes,
                title=title,
                measure="mean over heads of |similarity|",
                desc=finding,
            )
        )
    adjacent = [[abs(v) for v in row if v is not None] for row in record["similarity_matched"]]
    columns = {
        "by index, mean": [index[i + 1][i] for i in range(len(adjacent))],
        "matched, mean": [matched[i + 1][i] for i in range(len(adjacent))],
        "matched, median": [median(row) for row in adjacent],
    }
    return Figure(
        id="head_grams-similarity",
        caption=(
            "Similarity of head metrics between every two layers, with the size of g taken out. Chance at the "
            "best matching, with the layers’ "
            f"own spectra in scrambled coordinates, is {number(record['similarity_chance'])}. The order of heads is "
            "arbitrary, so the best matching is what counts."
        ),
        panels=tuple(panels),
        tables=(table("Mean |similarity| of adjacent layers", "layers", pair_names(len(adjacent)), columns),),
    )


def _curvature(record: Record) -> Figure:
    panels = [sign_energy(record["curvature"], "Negative energy, as stored"), _spectra(record)]
    columns = spread_by_layer(record["curvature"])
    return Figure(
        id="head_grams-curvature",
        caption=(
            "Signed eigenvalues of g + gᵀ. A head made of unrelated query and key weights has as much "
            "negative as positive energy, a "
            "share of one half. Grey: the range that counts as mixed."
        ),
        panels=tuple(panels),
        tables=(
            table(
                "Share of negative energy over heads, by layer",
                "layer",
                layer_names(len(record["curvature"])),
                columns,
            ),
        ),
    )


def _spectra(record: Record) -> Panel:
    """Median over heads of the eigenvalues from the most positive to the most negative, in three layers."""
    layers = len(record["sym_eigs"])
    chosen = sorted({0, layers // 2, layers - 1})
    count = len(record["sym_eigs"][0][0])
    tracks = {}
    for layer in chosen:
        scaled = [
            sorted((v / abs(eigs[0]) for v in eigs), reverse=True) for eigs in record["sym_eigs"][layer] if eigs[0]
        ]
        tracks[layer] = (
            [median(column) for column in zip(*scaled, strict=True)] if scaled else [None] * count
        )
    ranks = list(range(1, count + 1))
    y = axes.linear(
        [v for t in tracks.values() for v in t],
        label="eigenvalue / largest |eigenvalue|, median over heads",
        include=(-1.0, 1.0),
    )
    plot = Plot(x=axes.layers(count, label="rank, from most positive", first=1), y=y, room=8)
    plot.level(0, "zero", dash=False)
    for i, (layer, track) in enumerate(tracks.items()):
        plot.line(ranks, track, ("s0", "s1", "s2")[i], dash=i == 1, label=f"layer {layer}")
    return plot.panel("Eigenvalues of g + gᵀ", "A curve that is symmetric about zero belongs to heads of mixed sign.")


def _overlap(record: Record) -> Figure:
    track, chance = record["overlap_by_distance"], record["overlap_chance"]
    distances = list(range(1, len(track) + 1))
    y = axes.linear([*track, chance], label=f"overlap of the top {record['top']} directions", include=(0.0,))
    plot = Plot(x=axes.layers(len(track), label="distance in layers", first=1), y=y, room=8)
    plot.level(chance, "s1", label="chance")
    plot.line(distances, track, "s0")
    plot.points(distances, track, "s0")
    adjacent = [v for row in record["overlap_adjacent_matched"] for v in row if v is not None]
    finding = (
        f"Adjacent layers overlap by {number(track[0])}, "
        f"{number(track[0] / chance) if track[0] is not None else ''} times chance, at equal head index; "
        f"the median at the best matching is {number(median(adjacent))}."
    )
    return Figure(
        id="head_grams-overlap",
        caption=(
            f"Overlap of heads’ top {record['top']} right singular directions, at equal head index, by "
            "distance in layers. Unrelated subspaces "
            f"overlap by k/D = {number(chance)}."
        ),
        panels=(plot.panel("Shared subspaces by distance", finding),),
        keys=(Key(name="mean over heads and pairs", tone="s0"), Key(name="chance, k/D", tone="s1", kind="dash")),
        tables=(
            table("Mean overlap by distance in layers", "distance", [str(d) for d in distances], {"overlap": track}),
        ),
    )


def facts(record: Record) -> dict[str, str]:
    matched = [abs(v) for row in record["similarity_matched"] for v in row if v is not None]
    return {
        "heads": number(sum(len(row) for row in record["curvature"])),
        "top": number(record["top"]),
        "overlap": "yes" if record["overlap_by_distance"] is not None else "",
        "matched": number(median(matched)),
        "chance": number(record["similarity_chance"]),
    }


def published(record: Record) -> list[Comparison]:
    return [*_of_metrics(record["published"]), *_of_symmetry(record)]


def _of_symmetry(record: Record) -> list[Comparison]:
    if not (ranks := record.get("ranks")):
        return []
    misread = ranks["symmetry_misread"]
    slices = "" if misread is None else f"; with grouped keys sliced as the published code does {number(misread)}"
    return [
        Comparison(
            quantity="Symmetry of queries and keys",
            published=f"of the sum of a layer’s heads as stored: {number(ranks['symmetry_of_sum'])}{slices}",
            corrected=(
                f"of each head, gains folded in, at all distances: "
                f"{number(record['metrics']['all_distance_symmetry']['value'])} in the median"
            ),
        )
    ]


def _of_metrics(old: Mapping[str, Value]) -> list[Comparison]:
    return [
        Comparison(
            quantity="Size of a head’s metric",
            published=(
                f"fro_sq = ‖W_k W_qᵀ‖², {number(old['fro_sq_ratio'])} of the right value in the median head; "
                f"correlation with it {number(old['fro_sq_pearson'])}"
            ),
            corrected="‖W_kᵀ W_q‖², the gram’s own diagonal",
        ),
        Comparison(
            quantity="Similarity of a head with itself",
            published=f"{number(old['self_similarity'])} in the median head, because the norms are another matrix’s",
            corrected="1",
        ),
        Comparison(
            quantity="Top directions of a head",
            published=(
                f"V of W_k W_qᵀ pushed through W_q: mean |cos| {number(old['direction_abs_cos'])} with the "
                "right first direction, "
                f"|cos| {number(old['direction_crosstalk'])} between two of one head"
            ),
            corrected="right singular vectors of g: orthonormal, |cos| 1 and 0",
        ),
        Comparison(
            quantity="Pairing of heads between layers",
            published="by index",
            corrected="the linear assignment with the largest Σ |similarity|, beside the index",
        ),
    ]


SECTION = Section(
    name="head_grams",
    question="Do heads of different layers share a metric?",
    short="Heads",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "g omits what lies between the weights and the logits: the norms’ gains, q/k norms, biases and the "
        "rotation by position.",
        "A rotation of the residual stream between two layers, which the residual connection does not allow "
        "but a later norm partly hides, "
        "would make related heads look unrelated.",
    ),
)
