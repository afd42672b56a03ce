"""From a claim's gate and its controls to a word.

Read in this order: a gate that was skipped, crashed or undecided gives its word at once. A pass that a control shows
to be worthless is uninformative; a failure that a control shows to be blindness is undecided. A margin within the
numerical rounding decides nothing. What is left holds, or does not. At last the page asks many claims at once: an
answer whose p-value does not survive Holm's correction over them is undecided.

A row about the stored coordinates, whose number other coordinates move, has one word for good: coordinate-dependent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from analyses.errors import LEFT_OUT
from analyses.numerics.pvalues import benjamini_hochberg, holm
from checks.claims.compare import Status

VERDICTS = {
    "holds": "The number meets its limit, with its whole interval, and its control does not meet it.",
    "does not hold": "The number misses its limit, with its whole interval.",
    "uninformative": "The number meets its limit, but its control shows that it would do so anyway.",
    "undecided": "Left out of the measurement, too few layers or tokens, an interval across the limit, a test that "
    "would not have seen the effect, a margin within the rounding, or an answer that the number of claims makes likely "
    "by chance.",
    "not applicable": "The model has nothing that the claim speaks of.",
    "coordinate-dependent": "A published number in stored coordinates: a change of parameters that leaves the model's "
    "function alone moves it, so it says nothing of the model.",
    "error": "The analysis behind the claim failed.",
}
"""Each verdict's meaning in one sentence; `error` is no verdict on the claim but on the run."""

FROM_STATUS: dict[Status, str] = {
    "pass": "holds",
    "fail": "does not hold",
    "inconclusive": "undecided",
    "skip": "not applicable",
    "error": "error",
}

MEETS: dict[Status, str] = {
    "pass": "yes",
    "fail": "no",
    "inconclusive": "undecided",
    "skip": "not asked",
    "error": "failed",
}
"""Whether a number meets its limit."""

WORTHLESS = ("vacuous", "mechanical", "insensitive")  # answers of a class control to a pass
INSENSITIVE = "insensitive"
UNDEFINED = "not defined"  # of a control: then what it would have shown is unknown
WITHIN_ROUNDING = "within rounding"
LEVEL = 0.05  # of the answers of one page together

Evidence = Mapping[str, Any]  # {"answer": word, "detail": sentence, "runs": [...]}


def verdict(
    status: Status, reason: str | None, controls: Mapping[str, Evidence | None] | None
) -> tuple[str, str | None]:
    """(word, reason) of a row about the model, before the number of claims is taken into account.

    Parameters
    ----------
    status, reason : of its gate.
    controls : "control" and "noise", each its evidence, or None where it was not run.
    """
    if status not in ("pass", "fail"):
        return _without_number(status, reason), reason
    controls = controls or {}
    control, noise = (controls.get(name) for name in ("control", "noise"))
    if control and status == "pass" and control["answer"] in WORTHLESS:
        return "uninformative", f"{control['answer']}: {control['detail']}"
    if control and status == "pass" and control["answer"] == UNDEFINED:
        return "undecided", f"its control has no such number: {control['detail']}"
    if control and status == "fail" and control["answer"] == INSENSITIVE:
        return "undecided", f"{control['answer']}: {control['detail']}"
    if noise and noise["answer"] == WITHIN_ROUNDING:
        return "undecided", noise["detail"]
    return FROM_STATUS[status], reason


def stored_verdict(status: Status, reason: str | None) -> tuple[str, str | None]:
    """(word, reason) of a row about the stored coordinates, whose number is not invariant."""
    if status in ("skip", "error"):
        return _without_number(status, reason), reason
    return "coordinate-dependent", reason


def _without_number(status: Status, reason: str | None) -> str:
    """The word where there is nothing to compare: what the user left out may well apply to the model."""
    return "undecided" if status == "skip" and reason and LEFT_OUT in reason else FROM_STATUS[status]


def adjusted(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one page with their words after Holm's correction over those that were decided.

    Each gains `raw`, its word and reason before, and `p_adjusted`, None where its answer has no p-value.
    """
    asked = [i for i, c in enumerate(claims) if c["verdict"] in ("holds", "does not hold") and c["p"] is not None]
    corrected = dict(zip(asked, holm([claims[i]["p"] for i in asked]), strict=True))
    found = []
    for i, claim in enumerate(claims):
        p = corrected.get(i)
        raw = {"verdict": claim["verdict"], "reason": claim["verdict_reason"]}
        changed = {}
        if p is not None and p > LEVEL:
            alone = f"“{claim['verdict']}” by itself (p = {claim['p']:.2g})"
            reason = f"{alone}, but not among {len(asked)} answers (p = {p:.2g})"
            changed = {"verdict": "undecided", "verdict_reason": reason}
        found.append({**claim, **changed, "raw": raw, "p_adjusted": p})
    return found


def across(claims: Sequence[Mapping[str, Any] | None]) -> list[str | None]:
    """The words of one claim on many models, corrected for their number by Benjamini and Hochberg.

    A page's own word is kept but where it is decided and the corrected p-value of its answer is above LEVEL.
    """
    words = [claim and claim["verdict"] for claim in claims]
    asked = [i for i, c in enumerate(claims) if c and words[i] in ("holds", "does not hold") and c.get("p") is not None]
    for i, p in zip(asked, benjamini_hochberg([claims[i]["p"] for i in asked]), strict=True):
        if p > LEVEL:
            words[i] = "undecided"
    return words
