"""Figures and text of `weight_spectra`: exponents of the tails of spectra, folded and stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from checks.figures import axes
from checks.figures.geometry import Figure, Key, Panel, Value
from checks.figures.numbers import number, percent
from checks.figures.plots import Plot
from checks.sections.section import Comparison, Record, Section, layer_names, median, table

TONES = ("s0", "s1", "s2", "s3", "s4", "s5", "s7")
TITLES = {"folded": "What layers read and write", "stored": "Stored matrices"}


def figures(record: Record) -> dict[str, Figure]:
    tracks = {which: _alphas(record[which]) for which in TITLES if record[which]}
    known = [v for rows in tracks.values() for row in rows.values() for v in row if v is not None]
    if not known:
        return {}
    y = axes.logarithmic([*known, 2.0, 4.0], label="exponent α (log axis)")
    names = list(dict.fromkeys(name for rows in tracks.values() for name in rows))
    tones = {name: TONES[i % len(TONES)] for i, name in enumerate(names)}
    return {
        "exponents": Figure(
            id="weight_spectra-exponents",
            caption=(
                "The exponent of the density of the eigenvalues of WᵀW, by maximum likelihood, with the claimed "
                "range from 2 to 4 between the rules: of what layers read and write, which no exact change of "
                "parameters moves, and of the matrices as stored."
            ),
            panels=tuple(_panel(which, rows, y, tones) for which, rows in tracks.items()),
            keys=tuple(Key(name=name, tone=tone) for name, tone in tones.items()),
            tables=tuple(_table(which, record[which]) for which in tracks),
            size="third",
        )
    }


def _alphas(tails: Mapping[str, Sequence[Mapping[str, Any] | None]]) -> dict[str, list[Value]]:
    return {name: [tail and tail["alpha"] for tail in row] for name, row in tails.items()}


def _panel(which: str, rows: Mapping[str, Sequence[Value]], y: axes.Axis, tones: Mapping[str, str]) -> Panel:
    count = len(next(iter(rows.values())))
    plot = Plot(x=axes.layers(count), y=y)
    for limit in (2.0, 4.0):
        plot.level(limit, "s6")
    for name, row in rows.items():
        plot.line(range(count), row, tones[name])
    middle = median([v for row in rows.values() for v in row])
    return plot.panel(TITLES[which], f"{TITLES[which]}: the median exponent is {number(middle)}.")


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
