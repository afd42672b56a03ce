"""The page of one model: its records and outcomes as a plain summary, and the summary as one HTML file.

HTML is a pure function of the JSON in a model's folder. Every name passes through Jinja's
autoescape, a missing key is an error (StrictUndefined), and nothing is computed in a template.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses import registry
from checks.claims import written
from checks.claims.judge import current_records
from checks.figures.numbers import number
from checks.report import axis, provenance, words
from checks.report.cards import BROKEN, beside_it, card, identity, stored_row
from checks.report.remarks import remarks
from checks.report.rendering import render
from checks.sections.network import network
from checks.sections.section import Section, invariance
from checks.sections.sentences import findings
from checks.verify.embedded import NAMES, Carried, carry

LIMIT = 900_000  # bytes of a page, so that it can be mailed: records are left out above it
MARGIN = 4_000  # for the words that say what was left out


def render_model(folder: Path) -> str:
    """One model's page from the JSON in its folder.

    Raises InputError where `gates.json` or `manifest.json` is missing or is not strict JSON.
    """
    measured = current_records(folder)
    judged = written.read(folder / "gates.json")
    manifest = written.read(folder / "manifest.json")
    files = {name: path.read_bytes() for name in NAMES if (path := folder / name).exists()}
    return render_page(measured, judged, manifest, files)


def render_page(
    measured: Mapping[str, Mapping[str, Any]],
    judged: Mapping[str, Any],
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    carried: Mapping[str, Carried] | None = None,
) -> str:
    """One model's page; `carried` where it is known how the page carries its files, else as far as there is room."""
    page = summarise(measured, judged, manifest)
    if carried is None:
        # Without its files first: what the page leaves of its limit is the room that they have.
        room = LIMIT - MARGIN - len(render("report.html", page | _attached(files, {})).encode(errors="replace"))
        carried = carry(files, room)
    return render("report.html", page | _attached(files, carried))


# --- the summaries: plain values, ready to be written out ---------------------------------------------------------


def summarise(
    measured: Mapping[str, Mapping[str, Any]], judged: Mapping[str, Any], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that `report.html` shows, in words, strings and geometry."""
    integrity = [identity(outcome) for outcome in judged["integrity"]]
    claims, meanings = judged["claims"], judged["verdicts"]
    sections = [_section(section, measured.get(section.name), judged, manifest) for section in registry.sections()]
    overview = network(measured)
    drawn = [figure for section in sections for figure in section.get("figures", ())]
    return {
        "model": judged["model"],
        "architecture": provenance.architecture(manifest["architecture"]),
        "origin": provenance.origin(manifest),
        "holds": findings(claims, "holds"),
        "fails": findings(claims, "does not hold"),
        "answer": words.answer([claim["verdict"] for claim in claims]),
        "aside": words.aside(judged["stored"]),
        "caution": words.caution(claims),
        "shared": words.shared_reason(claims),
        "multiplicity": words.multiplicity(claims),
        "network": overview,
        "lines": _grouped(axis.lines(claims, judged["stored"]), sections),
        "ticks": axis.ticks(),
        "verdicts": [(word, meanings[word]) for word in words.VERDICTS if word in meanings],
        "glossary": [(word, words.tone(word), meaning) for word, meaning in words.GLOSSARY.items()],
        "choices": words.choices([claim["verdict"] for claim in claims]),
        "integrity": {"sentence": words.integrity(judged["integrity"]), "rows": integrity},
        "broken": [row for row in integrity if row["status"] in BROKEN],
        "sections": sections,
        "numbered": [figure for figure in (overview, *drawn) if figure and figure.tables],
        "anchors": ["network-of", "matrix", "integrity", *(s["name"] for s in sections), "provenance", "numbers"],
        "command": manifest["command"],
        "provenance": provenance.tables(manifest),
    }


def _grouped(lines: Sequence[dict[str, Any]], sections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of all claims under the questions of their sections, in the page's order."""
    groups = [
        {"name": s["name"], "short": s["short"], "lines": [line for line in lines if line["id"] in s["ids"]]}
        for s in sections
    ]
    return [group for group in groups if group["lines"]]


def _attached(files: Mapping[str, bytes], carried: Mapping[str, Carried]) -> dict[str, Any]:
    """The files that a page carries, as links; a file that is not carried yet has an empty one."""
    return {
        "files": {
            name: {
                "name": name,
                "href": carried[name].href if carried else "",
                "size": _bytes(len(data)),
                "left_out": words.left_out(carried[name].left_out) if carried else "",
            }
            for name, data in files.items()
        },
    }


def _bytes(count: int) -> str:
    return f"{number(count / 1e6)} MB" if count >= 1e6 else f"{number(max(1, round(count / 1e3)))} kB"


def _section(
    section: Section,
    record: Mapping[str, Any] | None,
    judged: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> dict[str, Any]:
    """One analysis' part of the page; a crashed or missing one still shows its claims."""
    mine = [claim for claim in judged["claims"] if claim["analysis"] == section.name]  # in the gates' order
    stored = [claim for claim in judged["stored"] if claim["analysis"] == section.name]
    error = record.get("error") if record else None
    skipped = "this analysis was not run" if record is None else record.get("skipped")
    summary: dict[str, Any] = {
        "name": section.name,
        "question": section.question,
        "short": section.short,
        "command": provenance.again(manifest, section.name),
        "error": error,
        "skipped": skipped,
        "ids": [claim["id"] for claim in (*mine, *stored)],
        "cards": [
            card(claim) | beside_it(claim, judged, record and {section.name: record}, manifest) for claim in mine
        ],
        "stored": [stored_row(claim) for claim in stored],
    }
    if error or skipped:
        return summary
    drawn = section.figures(record)
    return summary | {
        "figures": list(drawn.values()),  # the first leads, the rest is folded
        "further": len(drawn) - 1,
        "facts": section.facts(record),
        "remarks": remarks(section.published(record), [*mine, *stored], section.limits, record["notes"]),
        "invariance": invariance(manifest.get("invariance", {}).get(section.name, {})),
    }
