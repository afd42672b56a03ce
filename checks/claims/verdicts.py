"""From a claim's gate and its controls to one of six words.

Read in this order: a gate that was skipped, crashed or undecided gives its word at once. A pass
that a control shows to be worthless is uninformative. An answer that other coordinates change
speaks of the parametrisation. A margin within the numerical noise decides nothing. What is left
holds, or does not.
"""

from collections.abc import Mapping
from typing import Any

from checks.claims.gate import Status

VERDICTS = {
    "holds": "The number meets its threshold, with its whole interval, and nothing below speaks against it.",
    "does not hold": "The number misses its threshold, with its whole interval.",
    "uninformative": "The number meets its threshold, but its control shows that it would do so anyway.",
    "coordinate-dependent": "A change of parameters that leaves the model's function alone changes the answer.",
    "undecided": "Too few layers or tokens, an interval across the threshold, or a margin within the noise.",
    "not applicable": "The model has nothing that the claim speaks of.",
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

WORTHLESS = ("vacuous", "insensitive", "generic drift", "mechanical")  # answers of a class control
BLIND = "coordinate-blind"
CHANGES = "changes"
WITHIN_NOISE = "within noise"

Evidence = Mapping[str, Any]  # {"answer": word, "detail": sentence, "runs": [...]}


def verdict(
    status: Status, reason: str | None, controls: Mapping[str, Evidence | None] | None
) -> tuple[str, str | None]:
    """(word, reason) of a claim.

    Parameters
    ----------
    status, reason : of its gate.
    controls : "control", "coordinates" and "noise", each its evidence, or None where it was not run.
    """
    if status not in ("pass", "fail"):
        return FROM_STATUS[status], reason
    controls = controls or {}
    control, coordinates, noise = (controls.get(name) for name in ("control", "coordinates", "noise"))
    if control and status == "pass" and control["answer"] in WORTHLESS:
        return "uninformative", f"{control['answer']}: {control['detail']}"
    if control and status == "pass" and control["answer"] == BLIND:
        return "coordinate-dependent", f"{BLIND}: {control['detail']}"
    if coordinates and coordinates["answer"] == CHANGES:
        return "coordinate-dependent", coordinates["detail"]
    if noise and noise["answer"] == WITHIN_NOISE:
        return "undecided", noise["detail"]
    return FROM_STATUS[status], reason
