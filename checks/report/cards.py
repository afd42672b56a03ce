"""Cards: one claim on the page, with its sentence, strips, margin in words, and controls."""

from collections.abc import Mapping
from typing import Any

from checks.claims import published
from checks.claims.verdicts import FROM_STATUS
from checks.claims.written import deciding
from checks.figures.numbers import MISSING, apart, number, typeset
from checks.figures.strips import SYMBOLS, strip
from checks.report import words
from checks.sections.sentences import short

BROKEN = ("failed", "undecided", "could not be checked")
_IDENTITY = {"pass": "holds", "fail": BROKEN[0], "inconclusive": BROKEN[1], "error": BROKEN[2], "skip": "not asked"}


def card(claim: Mapping[str, Any]) -> dict[str, Any]:
    controls = claim["controls"] or {}
    found = [_finding(finding, k, controls) for k, finding in enumerate(claim["findings"])]
    decided = found[deciding(claim)]
    seen = decided["observed"]
    return {
        "id": claim["id"],
        "short": short(claim),
        "claim": words.sentence(claim["claim"]),
        "verdict": claim["verdict"],
        "rank": words.VERDICTS.index(claim["verdict"]),
        "decided": "no number" if seen == MISSING else f"{seen}, limit {decided['limit']}",
        "reason": words.closed(claim["verdict_reason"]),
        "answer": words.ANSWERS[claim["status"]],
        "tone": words.tone(words.ANSWERS[claim["status"]]),
        "findings": found,
        "why": words.sentence(claim["why"]),
        "counted": words.counted(claim["findings"], claim["minimum"]),
        "controlled": any(controls.get(name) for name in words.CONTROLS),
        "controls": [_control(title, controls.get(name)) for name, title in words.CONTROLS.items()],
    }


def beside_it(
    claim: Mapping[str, Any],
    judged: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Any]] | None,
    manifest: Mapping[str, Any],
) -> dict[str, Any]:
    """What stands beside a claim: published numbers, and its rival reading, with which of the two holds here."""
    rows = published.beside(claim["id"], judged["model"], found or {}, manifest.get("architecture"))
    return {"published": [_published(row) for row in rows], "rival": published.readings(claim, judged["claims"])}


def _published(row: Mapping[str, Any]) -> str:
    read = "read in the original" if row["original"] else "from a secondary source"
    said = f"{row['quantity']}: {number(row['value'])} for {row['model'][0]} ({row['source']}; {read})"
    if row["own"] is None:
        return f"{said}; not measured here."
    if not row["same"]:
        return f"{said}; the nearest relative. This one has {number(row['own'])}."
    far = number(abs(row["difference"]))
    within = "within" if abs(row["difference"]) <= row["tolerance"] else "beyond"
    return f"{said}; here {number(row['own'])}, {far} away, {within} the tolerance of {number(row['tolerance'])}."


def stored_row(claim: Mapping[str, Any]) -> dict[str, Any]:
    """A published number in stored coordinates: a line of a table, without a verdict of its own."""
    ranges = claim["orbits"] or [None] * len(claim["findings"])
    return {
        "id": claim["id"],
        "claim": words.sentence(claim["claim"]),
        "meets": claim["meets"],
        "tone": words.tone(claim["meets"]),
        "findings": [_stored_number(f, found) for f, found in zip(claim["findings"], ranges, strict=True)],
    }


def _stored_number(finding: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, str]:
    observed, limit = apart(finding["observed"], finding["threshold"])
    return {
        "quantity": finding["quantity"],
        "observed": observed,
        "limit": MISSING if finding["threshold"] is None else f"{SYMBOLS[finding['comparator']]} {limit}",
        "orbit": words.orbit(found),
    }


def _control(name: str, evidence: Mapping[str, Any] | None) -> dict[str, str]:
    if not evidence:
        return {"name": name, "answer": words.NOT_RUN, "tone": words.tone(words.NOT_RUN), "detail": ""}
    answer = evidence["answer"]
    return {
        "name": name,
        "answer": answer,
        "tone": words.tone(answer),
        # What “not needed” means stands in the glossary.
        "detail": "" if answer == words.NOT_NEEDED else typeset(evidence["detail"]),
    }


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
        "words": words.sentence(typeset(words.margin(finding, noise))),
        "reason": finding["reason"],
    }


def identity(outcome: Mapping[str, Any]) -> dict[str, Any]:
    finding = outcome["findings"][0]
    return {
        "claim": words.sentence(outcome["claim"]),
        "status": _IDENTITY[outcome["status"]],
        "reason": outcome["reason"],
        "observed": number(finding["observed"], 2),
        "tolerance": number(finding["threshold"], 2),
        "cases": number(max(finding["n"].values(), default=None)),
        "why": words.sentence(outcome["why"]),
    }
