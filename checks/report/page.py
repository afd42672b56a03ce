"""The page of one model: its records and outcomes as a plain summary, and the summary as one HTML file.

HTML is a pure function of the JSON in a model's folder. Every name passes through Jinja's
autoescape, a missing key is an error (StrictUndefined), and nothing is computed in a template.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses import records, registry
from checks.claims.judge import current_records
from checks.figures.numbers import number
from checks.report import provenance, words
from checks.report.cards import BROKEN, card, identity, stored_row
from checks.report.rendering import render
from checks.sections.section import Section, invariance
from checks.verify.embedded import NAMES, Carried, carry

LIMIT = 1_000_000  # bytes of a page, so that it can be mailed
MARGIN = 4_000  # for the words that say what was left out


def render_model(folder: Path) -> str:
    """One model's page from the JSON in its folder.

    Raises InputError where `gates.json` or `manifest.json` is missing or is not strict JSON.
    """
    measured = current_records(folder)
    judged = records.read_json(folder / "gates.json")
    manifest = records.read_json(folder / "manifest.json")
    files = {name: path.read_bytes() for name in NAMES if (path := folder / name).exists()}
    page = summarise(measured, judged, manifest)
    # Without its files first: what the page leaves of its limit is the room that they have.
    room = LIMIT - MARGIN - len(render("report.html", page | _attached(files, {})).encode(errors="replace"))
    return render("report.html", page | _attached(files, carry(files, room)))


# --- the summaries: plain values, ready to be written out ---------------------------------------------------------


def summarise(
    measured: Mapping[str, Mapping[str, Any]], judged: Mapping[str, Any], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that `report.html` shows, in words, strings and geometry."""
    integrity = [identity(outcome) for outcome in judged["integrity"]]
    claims, meanings = judged["claims"], judged["verdicts"]
    return {
        "model": judged["model"],
        "architecture": provenance.architecture(manifest["architecture"]),
        "origin": provenance.origin(manifest),
        "answer": words.answer([claim["verdict"] for claim in claims]),
        "caution": words.caution(claims),
        "multiplicity": words.multiplicity(claims),
        "verdicts": [(word, meanings[word]) for word in words.VERDICTS if word in meanings],
        "choices": words.choices([claim["verdict"] for claim in claims]),
        "integrity": {"sentence": words.integrity(judged["integrity"]), "rows": integrity},
        "broken": [row for row in integrity if row["status"] in BROKEN],
        "sections": [_section(section, measured.get(section.name), judged, manifest) for section in registry.sections()],
        "anchors": ["matrix", "integrity", *(section.name for section in registry.sections()), "provenance"],
        "command": manifest["command"],
        "provenance": provenance.tables(manifest),
    }


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
        "loose": [name for name in files if name.removesuffix(".json") not in registry.NAMES],
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
    mine = [claim for claim in judged["claims"] if claim["analysis"] == section.name]
    stored = [claim for claim in judged["stored"] if claim["analysis"] == section.name]
    mine.sort(key=lambda claim: words.VERDICTS.index(claim["verdict"]))  # stable: the gates' order within a verdict
    error = record.get("error") if record else None
    skipped = "this analysis was not run" if record is None else record.get("skipped")
    summary: dict[str, Any] = {
        "name": section.name,
        "file": f"{section.name}.json",
        "question": section.question,
        "short": section.short,
        "error": error,
        "skipped": skipped,
        "cards": [card(claim, provenance.again(manifest, section.name)) for claim in mine],
        "stored": [stored_row(claim) for claim in stored],
    }
    if error or skipped:
        return summary
    return summary | {
        "figures": section.figures(record),
        "facts": section.facts(record),
        "published": section.published(record),
        "errata": _errata([*mine, *stored]),
        "invariance": invariance(manifest.get("invariance", {}).get(section.name, {})),
        "limits": section.limits,
        "notes": [words.sentence(note) for note in record["notes"]],
    }


def _errata(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each erratum once, with the claims that it concerns."""
    claims_of: dict[str, list[str]] = {}
    for claim in claims:
        if claim["errata"]:
            claims_of.setdefault(words.sentence(claim["errata"]), []).append(claim["id"])
    return [{"text": text, "claims": ", ".join(sorted(ids))} for text, ids in claims_of.items()]
