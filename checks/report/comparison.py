"""The page that compares two runs: what differs between them, claim by claim, number by number, track by track."""

from collections.abc import Sequence
from typing import Any

from analyses import registry
from checks.figures.numbers import DIGITS, MOST_DIGITS, number, typeset
from checks.report import provenance, words
from checks.report.overlays import overlays
from checks.report.rendering import render
from checks.verify.compare import (
    CHANGED,
    DRIFT,
    FAILURE,
    FIX,
    GAINED,
    GROUPS,
    LOST,
    SAME,
    UNLIKE,
    Pair,
    Side,
    differences,
    metrics,
)
from checks.verify.differences import Leaf

TITLES = {
    FAILURE: "New failures",
    FIX: "Fixes",
    LOST: "Holds no longer",
    GAINED: "Holds now",
    CHANGED: "Other verdicts",
    DRIFT: "Drifts",
    UNLIKE: "Not comparable",
    SAME: "Unchanged",
}
MEANINGS = {
    FAILURE: "It held in A and does not hold in B, or its analysis fails in B.",
    FIX: "It did not hold in A and holds in B.",
    LOST: "It held at the step of A and does not at that of B.",
    GAINED: "It did not hold at the step of A and holds at that of B.",
    CHANGED: "Another verdict, neither of them “holds”.",
    DRIFT: "The same verdict, but a number moved further than its tolerance.",
    UNLIKE: "The two runs did not ask the same question, so a difference is neither failure nor drift.",
    SAME: "The same verdict, and every number within its tolerance.",
}
TRAINED = "The same verdict at both steps; training may have moved the numbers."


def answer(pairs: Sequence[Pair]) -> str:
    """All claims in one sentence."""
    counts = {group: sum(pair.group == group for pair in pairs) for group in GROUPS}
    trained = any(pair.trained for pair in pairs)
    parts = [
        *([words.count(counts[FAILURE], "new failure")] if counts[FAILURE] else []),
        *([] if counts[FAILURE] or trained else ["no new failure"]),
        *([f"{counts[FIX]} fixed"] if counts[FIX] else []),
        *([f"{counts[LOST]} hold{'s' if counts[LOST] == 1 else ''} no longer"] if counts[LOST] else []),
        *([f"{counts[GAINED]} hold{'s' if counts[GAINED] == 1 else ''} now"] if counts[GAINED] else []),
        *([f"{counts[CHANGED]} with another verdict"] if counts[CHANGED] else []),
        *([f"{counts[DRIFT]} drifting"] if counts[DRIFT] else []),
        f"{counts[SAME]} unchanged",
        *([f"{counts[UNLIKE]} not comparable"] if counts[UNLIKE] else []),
    ]
    said = words.sentence(f"Of {words.count(len(pairs), 'claim')}: {', '.join(parts)}")
    return f"Same training, other step. {said}" if trained else said


def broken(side: Side) -> list[str]:
    """Identities that do not hold in a run."""
    return [o["claim"] for o in side.judged["integrity"] if o["status"] not in ("pass", "skip")]


def render_comparison(a: Side, b: Side, pairs: Sequence[Pair]) -> str:
    return render("compare.html", summarise(a, b, pairs))


def summarise(a: Side, b: Side, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Everything that `compare.html` shows."""
    trained = any(pair.trained for pair in pairs)
    groups = [
        {
            "id": group.replace(" ", "-"),
            "title": TITLES[group],
            "meaning": TRAINED if group == SAME and trained else MEANINGS[group],
            "column": "Deciding numbers, A → B" + ("" if group == UNLIKE or trained else ", and how far they may move"),
            "reason": _common([pair for pair in pairs if pair.group == group]),
            "pairs": [_pair(pair) for pair in pairs if pair.group == group],
        }
        for group in GROUPS
    ]
    groups = [group for group in groups if group["pairs"]]
    return {
        "anchors": ["runs", *(group["id"] for group in groups), *(section.name for section in registry.sections())],
        "sides": [_side("A", a), _side("B", b)],
        "answer": answer(pairs),
        "broken": [words.sentence(claim) for claim in broken(b)],
        "differences": [(part, _short(left), _short(right)) for part, left, right in differences(a, b)],
        "groups": groups,
        "sections": [_section(section.name, section.question, section.short, a, b) for section in registry.sections()],
    }


def _side(letter: str, side: Side) -> dict[str, Any]:
    return {
        "letter": letter,
        "name": side.name,
        "date": side.manifest.get("date") or "",
        "revision": provenance.revision(side.manifest),
        "dtype": provenance.dtype(side.manifest),
        "architecture": provenance.architecture(side.manifest["architecture"]),
        "answer": words.answer([claim["verdict"] for claim in side.judged["claims"]]),
        "command": side.manifest["command"],
    }


def _short(value: str) -> str:
    """A digest by its start; anything else as it is."""
    bare = value.removeprefix("sha256:")
    whole = len(bare) == 64 and set(bare) <= set("0123456789abcdef")
    return f"{bare[: provenance.DIGEST]}…" if whole else value


def _common(pairs: Sequence[Pair]) -> str:
    """The reasons that all of several claims have; "" where they differ, and each says its own."""
    reasons = {pair.reasons for pair in pairs}
    return _sentence(reasons.pop()) if len(pairs) > 1 and len(reasons) == 1 else ""


def _sentence(reasons: Sequence[str]) -> str:
    return words.sentence(typeset("; ".join(reasons)))


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "id": pair.id,
        "claim": words.sentence(pair.claim),
        "a": pair.a,
        "b": pair.b,
        "numbers": [_number(given) for given in pair.numbers if given.recorded is not None or given.found is not None],
        "reasons": _sentence(pair.reasons),
        "held": pair.group != UNLIKE and not pair.trained,  # against a tolerance
    }


def _number(given: Leaf) -> dict[str, Any]:
    left, right = _both(given.recorded, given.found)
    return {
        "name": given.path,
        "a": left,
        "b": right,
        "moved": number(given.moved) if given.moved is not None else "",
        "size": "" if given.moved is None else given.moved,
        "tolerance": number(given.tolerance, 2),
        "source": given.source,
        "drifts": given.drifts,
    }


def _both(a: float | None, b: float | None) -> tuple[str, str]:
    """Both numbers with digits added until they differ, where they do."""
    if a is None or b is None:
        return number(a), number(b)
    shown = DIGITS
    while a != b and shown < MOST_DIGITS + 2 and number(a, shown) == number(b, shown):
        shown += 1
    return number(a, shown), number(b, shown)


def _section(name: str, question: str, short: str, a: Side, b: Side) -> dict[str, Any]:
    sides = [side.found.get(name) for side in (a, b)]
    absent = [
        f"{letter}: {(record.get('error') or record.get('skipped')) if record else 'not run'}"
        for letter, record in zip("AB", sides, strict=True)
        if record is None or record.get("error") or record.get("skipped")
    ]
    summary = {"name": name, "question": question, "short": short, "absent": "; ".join(absent)}
    if absent:
        return summary
    rows = [_number(given) for given in metrics(a, b, name)]
    return summary | {
        "figure": overlays(name, *(record for record in sides if record is not None)),
        "numbers": rows,
        "drifting": sum(row["drifts"] for row in rows),
    }
