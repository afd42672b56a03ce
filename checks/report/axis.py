"""All claims on one axis: how far each number lies from its limit, in units of the limit.

A number lies right of the middle where it meets its limit. Distances are divided by |limit|, or by nothing where the
limit is 0, and cut at REACH. Beside the number stand those of its control models and the published number in stored
coordinates, on the scale of its own limit, with the range that exact changes of coordinates give it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from checks.claims.gate import STORED
from checks.claims.written import deciding
from checks.figures.numbers import apart
from checks.figures.paths import tidy
from checks.figures.strips import SYMBOLS, drawn
from checks.report import words
from checks.sections.sentences import short

REACH = 1.5  # times |limit|: what lies further is drawn at the end
TICKS = ((-1.0, "−1"), (0.0, "limit"), (1.0, "+1"))
MISSED = "as stored only"  # for a claim whose only row is about the stored coordinates

Claim = Mapping[str, Any]


def distance(value: float, finding: Claim) -> float:
    """From the limit, positive where it is met, in units of |limit|; not cut."""
    limit = finding["threshold"]
    inside = limit - value if finding["comparator"].startswith("<") else value - limit
    return inside / (abs(limit) or 1.0)


def place(value: float, finding: Claim) -> float:
    """Percent of the axis' width, at an end for what lies beyond it."""
    cut = max(-REACH, min(REACH, distance(value, finding)))
    return tidy(50 + 50 * cut / REACH, 2)


def ticks() -> list[dict[str, Any]]:
    return [{"at": round(50 + 50 * at / REACH, 2), "text": text} for at, text in TICKS]


def lines(claims: Sequence[Claim], stored: Sequence[Claim]) -> list[dict[str, Any]]:
    """A line for every claim, in the gates' order; one without a model row stands where its stored row does."""
    published = {row["id"].removesuffix(STORED): row for row in stored}
    own = {claim["id"] for claim in claims}
    found = [line(claim, published.get(claim["id"])) for claim in claims]
    for id, row in published.items():
        if id not in own:
            before = [i for i, claim in enumerate(claims) if claim["analysis"] == row["analysis"]]
            found.insert(before[-1] + 1 if before else len(found), line(None, row))
    return found


def line(claim: Claim | None, stored: Claim | None) -> dict[str, Any]:
    """One claim; `claim` is None where only its stored row is asked."""
    row = claim or stored
    assert row is not None
    k = deciding(row)
    finding = row["findings"][k]
    drawing = _drawing(claim, k, stored) if finding["threshold"] is not None else {}
    return {
        "id": row["id"],
        "short": short(row),
        "verdict": row["verdict"],
        "word": row["verdict"] if claim else MISSED,
        "desc": _described(finding, row, drawing),
        "drawing": drawing,
        "signs": _signs(claim) if claim else [],
    }


def _drawing(claim: Claim | None, k: int, stored: Claim | None) -> dict[str, Any]:
    """Places of everything on a line; "" or an empty list where there is nothing."""
    empty: dict[str, Any] = {"dot": "", "beyond": "", "interval": "", "controls": [], "published": "", "orbit": ""}
    if claim:
        finding = claim["findings"][k]
        if (seen := finding["observed"]) is not None:
            empty["dot"] = place(seen, finding)
            far = distance(seen, finding)
            empty["beyond"] = "‹" if far < -REACH else "›" if far > REACH else ""
        if finding["interval"]:
            empty["interval"] = sorted(place(end, finding) for end in finding["interval"])
        runs = ((claim["controls"] or {}).get("control") or {}).get("runs", ())
        values = [("", run["observed"][k]) for run in runs if run["observed"][k] is not None]
        empty["controls"] = sorted({place(value, finding) for _, value in drawn(values)})
    if stored:
        n = deciding(stored)
        finding, found = stored["findings"][n], (stored["orbits"] or [None] * (n + 1))[n]
        if finding["observed"] is not None and finding["threshold"] is not None:
            empty["published"] = place(finding["observed"], finding)
            if found:
                empty["orbit"] = sorted(place(found[end], finding) for end in ("low", "high"))
    return empty


def _described(finding: Claim, row: Claim, drawing: Mapping[str, Any]) -> str:
    if finding["observed"] is None or finding["threshold"] is None:
        return f"{short(row)}: no number"
    seen, limit = apart(finding["observed"], finding["threshold"])
    beyond = ", beyond the end of the axis" if drawing["beyond"] else ""
    return f"{seen}, limit {SYMBOLS[finding['comparator']]} {limit}{beyond}"


def _signs(claim: Claim) -> list[dict[str, str]]:
    """What speaks for and against an answer: the number, its control, rounding, and the number of claims."""
    controls = claim["controls"] or {}
    answers = [("number meets its limit", words.ANSWERS[claim["status"]])]
    for name, title in words.CONTROLS.items():
        evidence = controls.get(name)
        answers.append((title.lower(), evidence["answer"] if evidence else words.NOT_RUN))
    answers.append(("among all claims", words.among(claim)))
    return [{"name": name, "answer": answer, "tone": words.tone(answer)} for name, answer in answers]

