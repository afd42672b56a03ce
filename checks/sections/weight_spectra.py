"""Figures and text of `weight_spectra`: exponents of the tails of spectra, folded and stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from checks.figures.geometry import Figure, Value
from checks.figures.numbers import number, percent
from checks.figures.rows import Track, aligned
from checks.sections.section import Comparison, Record, Section, layer_names, table

TITLES = {"folded": "What layers read and write", "stored": "Stored matrices"}
GROUPS = {"folded": "read, written", "stored": "as stored"}
CLAIMED = (2.0, 4.0)  # exponents of a heavy tail, as the claim has them


def figures(record: Record) -> dict[str, Figure]:
    tracks = {which: _alphas(record[which]) for which in TITLES if record[which]}
    if not any(v is not None for rows in tracks.values() for row in rows.values() for v in row):
        return {}
    count = len(next(row for rows in tracks.values() for row in rows.values()))
    low, high = ([end] * count for end in CLAIMED)
    rows = [
        Track(
            name=name,
            group=GROUPS[which],
            family=name if which == "stored" else "",
            values=row,
            band=(low, high),
            log=True,
        )
        for which, found in tracks.items()
        for name, row in found.items()
    ]
    return {
        "exponents": Figure(
            id="weight_spectra-exponents",
            caption=(
                "The exponent of the density of the eigenvalues of WᵀW, by maximum likelihood, all on one logarithmic "
                "scale; grey: the claimed range from 2 to 4. Exact changes of parameters move the exponents of stored "
                "matrices, and not those of what layers read and write."
            ),
            rows=aligned(rows, count, shared=True),
            tables=tuple(_table(which, record[which]) for which in tracks),
        )
    }


def _alphas(tails: Mapping[str, Sequence[Mapping[str, Any] | None]]) -> dict[str, list[Value]]:
    return {name: [tail and tail["alpha"] for tail in row] for name, row in tails.items()}


def _table(which: str, tails: Mapping[str, Sequence[Mapping[str, Any] | None]]):
    columns: dict[str, list[Value]] = {}
    for name, row in tails.items():
        columns[f"{name} α"] = [tail and tail["alpha"] for tail in row]
        columns[f"{name} p"] = [tail and tail["p"] for tail in row]
    count = len(next(iter(tails.values())))
    return table(f"{TITLES[which]}: exponent, and p of the law", "layer", layer_names(count), columns)


def facts(record: Record) -> dict[str, str]:
    metrics = record["metrics"]
    return {
        "folded": number(metrics["folded_alpha"]["value"]),
        "stored": number(metrics["stored_alpha"]["value"]),
        "plausible": percent(metrics["folded_plausible"]["value"]),
    }


SECTION = Section(
    name="weight_spectra",
    question="Do the spectra of the weights have heavy tails?",
    short="Spectra",
    figures=figures,
    facts=facts,
    published=lambda record: [
        Comparison(
            quantity="Exponent of a weight matrix",
            published=f"of the matrix as stored: α {number(record['metrics']['stored_alpha']['value'])} in the median",
            corrected=(
                f"of what layers read and write, gains folded in: α "
                f"{number(record['metrics']['folded_alpha']['value'])}; "
                f"a power law is not ruled out for {percent(record['metrics']['folded_plausible']['value'])} of them"
            ),
        )
    ],
    limits=(
        "A few hundred eigenvalues seldom tell a power law from a log-normal, and x_min is chosen where it looks "
        "best.",
    ),
)
