"""Test cases of a run, from which JUnit XML and the Markdown summary are written.

A gate's status becomes one of the four outcomes that every CI system knows. An identity fails unless
it passes: one that could not be decided is no ground to trust the rest. A claim fails where its gate
does; that is what `--strict` counts. A claim whose gate passes, but whose verdict is another word
than "holds", is skipped with that word: a green tick would say what the verdict denies. So is what
is undecided or not applicable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from checks.figures.numbers import apart, typeset
from checks.figures.strips import SYMBOLS

Status = Literal["pass", "fail", "skip", "error"]

INTEGRITY: Mapping[str, Status] = {
    "pass": "pass",
    "fail": "fail",
    "inconclusive": "fail",
    "skip": "skip",
    "error": "error",
}
CLAIM: Mapping[str, Status] = INTEGRITY | {"inconclusive": "skip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question and its outcome, in words that need no other file."""

    suite: str  # the group it belongs to: "integrity", an analysis, a file
    name: str  # a sentence; unique within its suite
    status: Status
    message: str = ""  # one line; why it did not pass, or what passed with which number
    word: str = ""  # a finer word than the status, such as the verdict


def cases(judged: Mapping[str, Any]) -> list[Case]:
    """Every gate of `gates.json`: first the identities, then by analysis the claims and their stored rows."""
    rows = [*map(_claim, judged["claims"]), *map(_stored, judged["stored"])]
    order = list(dict.fromkeys(case.suite for case in rows))
    return [*map(_identity, judged["integrity"]), *sorted(rows, key=lambda case: order.index(case.suite))]


def _identity(outcome: Mapping[str, Any]) -> Case:
    return Case(
        suite="integrity",
        name=f"{outcome['id']}: {outcome['claim']}",
        status=INTEGRITY[outcome["status"]],
        message=_message(outcome, outcome["reason"]),
        word={"inconclusive": "undecided"}.get(outcome["status"], ""),
    )


def _claim(claim: Mapping[str, Any]) -> Case:
    status, verdict = CLAIM[claim["status"]], claim["verdict"]
    return Case(
        suite=claim["analysis"],
        name=f"{claim['id']}: {claim['claim']}",
        status="skip" if status == "pass" and verdict != "holds" else status,
        message=_message(claim, claim["verdict_reason"]),
        word=verdict,
    )


def _stored(claim: Mapping[str, Any]) -> Case:
    """A number in stored coordinates: neither a success nor a failure of the model."""
    status = CLAIM[claim["status"]]
    return Case(
        suite=claim["analysis"],
        name=f"{claim['id']}: {claim['claim']}",
        status="error" if status == "error" else "skip",
        message=_message(claim, f"meets its limit as stored: {claim['meets']}"),
        word=claim["verdict"],
    )


def _message(outcome: Mapping[str, Any], reason: str | None) -> str:
    """Every number of a gate beside its limit, then the reason."""
    parts = []
    for finding in outcome["findings"]:
        if finding["observed"] is not None and finding["threshold"] is not None:
            observed, limit = apart(finding["observed"], finding["threshold"])
            parts.append(f"{finding['quantity']}: {observed}, must be {SYMBOLS[finding['comparator']]} {limit}")
    return "; ".join([*parts, *([typeset(reason)] if reason else [])])
