"""The page: records and outcomes become a plain summary, and the summary becomes one HTML file.

HTML is a pure function of the JSON in a model's folder. Every name passes through Jinja's
autoescape, a missing key is an error (StrictUndefined), and nothing is computed in a template.
"""

import base64
import functools
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from analyses import records
from checks import words
from checks.embedded import NAMES, Carried, carry
from checks.judge import current_records
from checks.numbers import MISSING, apart, number, typeset
from checks.section import Section, invariance
from checks.sections import SECTIONS
from checks.strips import SYMBOLS, strip
from checks.verdicts import FROM_STATUS

LIMIT = 1_000_000  # bytes of a page, so that it can be mailed
MARGIN = 4_000  # for the words that say what was left out
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}


def render_model(folder: Path) -> str:
    """One model's page from the JSON in its folder.

    Raises InputError where `gates.json` or `manifest.json` is missing or is not strict JSON.
    """
    found = current_records(folder)
    judged = records.read_json(folder / "gates.json")
    manifest = records.read_json(folder / "manifest.json")
    files = {name: path.read_bytes() for name in NAMES if (path := folder / name).exists()}
    page, template = summarise(found, judged, manifest), _environment().get_template("report.html")
    # Without its files first: what the page leaves of its limit is the room that they have.
    room = LIMIT - MARGIN - len(template.render(page=page | _attached(files, {})).encode())
    return template.render(page=page | _attached(files, carry(files, room)))


def render_index(folders: Sequence[Path], out: Path) -> str:
    """Claims × models over these folders; links are relative to the folder `out`."""
    models = []
    for folder in folders:
        judged, manifest = records.read_json(folder / "gates.json"), records.read_json(folder / "manifest.json")
        models.append((f"{Path(os.path.relpath(folder, out)).as_posix()}/report.html", judged, manifest))
    return _environment().get_template("index.html").render(page=summarise_index(models))


# --- the summaries: plain values, ready to be written out ---------------------------------------------------------


def summarise(
    found: Mapping[str, Mapping[str, Any]], judged: Mapping[str, Any], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that `report.html` shows, in words, strings and geometry."""
    integrity = [_identity(outcome) for outcome in judged["integrity"]]
    claims, meanings = judged["claims"], judged["verdicts"]
    source = manifest["model"] + (f"@{manifest['revision']}" if manifest.get("revision") else "")
    return {
        "model": judged["model"],
        "architecture": _architecture(manifest["architecture"]),
        "origin": _origin(manifest),
        "answer": words.answer([claim["verdict"] for claim in claims]),
        "caution": words.caution(claims),
        "verdicts": [(word, meanings[word]) for word in words.VERDICTS if word in meanings],
        "choices": _choices([claim["verdict"] for claim in claims]),
        "integrity": {"sentence": words.integrity(judged["integrity"]), "rows": integrity},
        "broken": [row for row in integrity if row["status"] in BROKEN],
        "sections": [_section(section, found.get(section.name), claims, source) for section in SECTIONS],
        "command": manifest["command"],
        "provenance": _provenance(manifest),
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
        "loose": [name for name in files if name.removesuffix(".json") not in records.ANALYSES],
    }


def _bytes(count: int) -> str:
    return f"{number(count / 1e6)} MB" if count >= 1e6 else f"{number(max(1, round(count / 1e3)))} kB"


BROKEN = ("failed", "undecided", "could not be checked")
_IDENTITY = {"pass": "holds", "fail": BROKEN[0], "inconclusive": BROKEN[1], "error": BROKEN[2], "skip": "not asked"}


def summarise_index(models: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """Everything that `index.html` shows, from (link, gates, manifest) of each model."""
    claims: dict[str, Mapping[str, Any]] = {}
    for _, judged, _ in models:
        claims |= {claim["id"]: claim for claim in judged["claims"] if claim["id"] not in claims}
    every = [claim for _, judged, _ in models for claim in judged["claims"]]
    asked = f"{len(claims)} claims, {len(models)} model{'s' if len(models) != 1 else ''}"
    return {
        "answer": f"{asked}. Each verdict links to its evidence.",
        "caution": words.caution(every),
        "columns": len(models) + 1,
        "choices": _choices([claim["verdict"] for claim in every]),
        "models": [
            {
                "name": judged["model"],
                "href": href,
                "architecture": _architecture(manifest["architecture"]),
                "integrity": words.integrity(judged["integrity"]),
                "answer": words.answer([claim["verdict"] for claim in judged["claims"]]),
            }
            for href, judged, manifest in models
        ],
        "groups": [
            {
                "question": section.question,
                "rows": [
                    _row(id, claim["claim"], [_cell(id, *model) for model in models])
                    for id, claim in claims.items()
                    if claim["analysis"] == section.name
                ],
            }
            for section in SECTIONS
            if any(claim["analysis"] == section.name for claim in claims.values())
        ],
    }


def _row(id: str, claim: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    verdicts = [cell["verdict"] for cell in cells if cell["verdict"]]
    return {"id": id, "claim": _sentence(claim), "cells": cells, "verdicts": verdicts}


def _cell(id: str, href: str, judged: Mapping[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
    verdict = next((claim["verdict"] for claim in judged["claims"] if claim["id"] == id), None)
    rank = words.VERDICTS.index(verdict) if verdict else ""
    return {"model": judged["model"], "verdict": verdict, "rank": rank, "href": f"{href}#claim-{id}"}


def _choices(verdicts: Sequence[str]) -> list[tuple[str, int]]:
    """The verdicts that a table's rows can be filtered by, each with its count; none where there is no choice."""
    found = [(word, count) for word in words.VERDICTS if (count := verdicts.count(word))]
    return found if len(found) > 1 else []


def _section(
    section: Section, record: Mapping[str, Any] | None, claims: Sequence[Mapping[str, Any]], source: str
) -> dict[str, Any]:
    """One analysis' part of the page; a crashed or missing one still shows its claims."""
    mine = [claim for claim in claims if claim["analysis"] == section.name]
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
        "cards": [_card(claim, source) for claim in mine],
    }
    if error or skipped:
        return summary
    return summary | {
        "figures": section.figures(record),
        "facts": section.facts(record),
        "published": section.published(record),
        "errata": _errata(mine),
        "invariance": invariance(record),
        "limits": section.limits,
        "notes": [_sentence(note) for note in record["notes"]],
    }


def _errata(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each erratum once, with the claims that it concerns."""
    found: dict[str, list[str]] = {}
    for claim in claims:
        if claim["errata"]:
            found.setdefault(_sentence(claim["errata"]), []).append(claim["id"])
    return [{"text": text, "claims": ", ".join(sorted(ids))} for text, ids in found.items()]


def _card(claim: Mapping[str, Any], source: str) -> dict[str, Any]:
    controls = claim["controls"] or {}
    return {
        "id": claim["id"],
        "claim": _sentence(claim["claim"]),
        "verdict": claim["verdict"],
        "rank": words.VERDICTS.index(claim["verdict"]),
        "reason": _closed(claim["verdict_reason"]),
        "answer": words.ANSWERS[claim["status"]],
        "findings": [_finding(finding, k, controls) for k, finding in enumerate(claim["findings"])],
        "why": _sentence(claim["why"]),
        "counted": words.counted(claim["findings"], claim["minimum"]),
        "controlled": any(controls.get(name) for name in words.CONTROLS),
        "controls": [_control(name, controls.get(name)) for name in words.CONTROLS],
        "command": f"fathom measure {source} --only {claim['analysis']}",
    }


def _control(name: str, evidence: Mapping[str, Any] | None) -> dict[str, str]:
    if not evidence:
        return {"name": name.capitalize(), "answer": words.NOT_RUN, "detail": ""}
    return {"name": name.capitalize(), "answer": evidence["answer"], "detail": typeset(evidence["detail"])}


def _finding(finding: Mapping[str, Any], k: int, controls: Mapping[str, Any]) -> dict[str, Any]:
    """The k-th condition of a claim; its control values and its noise are drawn where they were measured."""
    runs = (controls.get("control") or {}).get("runs", ())
    values = [(run["name"], run["observed"][k]) for run in runs if run["observed"][k] is not None]
    bands = (controls.get("noise") or {}).get("bands") or ()
    noise = bands[k] if k < len(bands) else None
    observed, limit = apart(finding["observed"], finding["threshold"])
    return {
        "quantity": finding["quantity"],
        "tone": FROM_STATUS[finding["status"]],
        "observed": observed,
        "limit": MISSING if finding["threshold"] is None else f"{SYMBOLS[finding['comparator']]} {limit}",
        "strip": strip(finding, controls=values, noise=noise),
        "words": _sentence(typeset(words.margin(finding, noise))),
        "reason": finding["reason"],
    }


def _identity(outcome: Mapping[str, Any]) -> dict[str, Any]:
    finding = outcome["findings"][0]
    return {
        "claim": _sentence(outcome["claim"]),
        "status": _IDENTITY[outcome["status"]],
        "reason": outcome["reason"],
        "observed": number(finding["observed"], 2),
        "tolerance": number(finding["threshold"], 2),
        "cases": number(max(finding["n"].values(), default=None)),
        "why": _sentence(outcome["why"]),
    }


def _architecture(facts: Mapping[str, Any]) -> list[str]:
    """The model in one line; facts that the manifest lacks are left out."""
    wanted = (
        ("model_type", "{}"),
        ("layers", "{} layers"),
        ("heads", "{} heads"),
        ("kv_heads", "{} key/value heads"),
        ("head_dim", "head dimension {}"),
        ("hidden", "hidden {}"),
        ("feed_forward", "feed-forward {}"),
        ("parameters", "{} parameters"),
        ("stored_dtype", "{}"),
    )
    line = []
    for key, words_ in wanted:
        if (value := facts.get(key)) is not None:
            shown = _millions(value) if key == "parameters" else DTYPES.get(value, value)
            line.append(words_.format(number(shown) if isinstance(shown, int) else shown))
    return line


def _millions(count: int) -> str:
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if count >= size:
            return number(count / size) + word
    return number(count)


def _origin(manifest: Mapping[str, Any]) -> list[str]:
    line = []
    if manifest.get("revision"):
        line.append(f"revision {manifest['revision']}")
    if manifest.get("date"):
        line.append(f"measured {manifest['date']}")
    return line


def _provenance(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The manifest as tables: one for its plain values, one for every mapping in it."""
    plain = {k: v for k, v in manifest.items() if not isinstance(v, Mapping) and k != "schema_version"}
    tables = [{"title": "Run", "rows": _rows(plain), "wide": True}]
    for key, value in manifest.items():
        if isinstance(value, Mapping) and value and key != "absent":
            tables.append(
                {
                    "title": TITLES.get(key, key.replace("_", " ").capitalize()),
                    "rows": _rows(value),
                    "wide": key == "files",
                }
            )
    return tables


TITLES = {
    "files": "Files read, with their SHA-256",
    "timings": "Time taken (seconds)",
    "forward": "Forward pass",
    "calibration": "Calibration text",
}


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        name = prefix + (key if "." in key else key.replace("_", " "))
        if isinstance(value, Mapping):
            rows += _rows(value, f"{name} · ")
        elif value is not None:
            rows.append((name, _written(value)))
    return rows


def _written(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return number(value)
        case list():
            return ", ".join(_written(item) for item in value)
    return str(value)


def _sentence(text: str | None) -> str:
    """First letter up, full stop at the end; identifiers and symbols at the start are left as they are."""
    text = (text or "").strip()
    if not text:
        return ""
    first = text.split()[0]
    if first.isalpha() and first.isascii() and first.islower() and (len(first) > 1 or first == "a"):
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def _closed(text: str | None) -> str:
    """A full stop at the end of a reason that follows a colon."""
    return f"{typeset(text).rstrip('.')}." if text else ""


def slug(text: str) -> str:
    """A word as part of a class name or an anchor.

    >>> slug("does not hold")
    'does-not-hold'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _policy(script: str) -> str:
    """A content security policy under which no request leaves the page and no script runs but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@functools.cache
def _environment() -> jinja2.Environment:
    here = Path(__file__).parent
    # Installed, the templates are a package below checks; in the source tree they lie beside it.
    folders = [here / "templates", here.parent / "templates"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder for folder in folders if folder.is_dir()]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["slug"] = slug
    environment.globals["policy"] = _policy(environment.get_template("page.js").render())
    environment.filters["number"] = number
    return environment
