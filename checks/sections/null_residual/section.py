"""Text of `null_residual`: likeness of adjacent layers."""

import math
import statistics

from analyses.weights.architectures import GAINS, MATRICES
from checks.figures.numbers import number
from checks.sections.null_residual.cosines import column, figures
from checks.sections.section import Comparison, Record, Section


def facts(record: Record) -> dict[str, str]:
    summary = record["summary"]
    cosines = [abs(s["median_cos"]) for f, s in summary.items() if f in MATRICES and s["median_cos"] is not None]
    nulls = [v for f in summary if f in GAINS for v in column(record, f, "null_cos") if v is not None]
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
    short="Layers",
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
