"""Verdicts in sentences: the answer at the top of a page, margins, and what would change an answer.

Plain outcomes in (the dicts of `gates.json`), English out. Counts and distances are formed here, so
that a template never has to.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from checks.claims.verdicts import WITHIN_ROUNDING
from checks.figures.numbers import number, percent, stated, typeset

VERDICTS = ("error", "does not hold", "uninformative", "undecided", "holds", "not applicable", "coordinate-dependent")
"""In the order in which a reader should see them: what went wrong first."""

PATH = re.compile(r" \([\w.]+\)$")  # of a number in its record, after the words for it
SEVERAL = 5  # claims; a reason that so many share is told once above them
CONTROLS = {"control": "Control", "noise": "Rounding"}
NOT_RUN = "not\u00a0run"  # never broken over two lines
NOT_NEEDED = "not needed"
CAUTION = (
    "No controls have been run on these claims. Until they are, “holds” means only that the number meets its "
    "limit: an untrained model may meet it too, and rounding may carry the number across."
)
PARTLY = (
    "Some controls have not been run. Where one was not, “holds” means only that the number meets its limit."
)
ANSWERS = {"pass": "yes", "fail": "no", "inconclusive": "undecided", "skip": "not asked", "error": "failed"}

GLOSSARY = {
    "informative": "The control answers otherwise than the model, so the answer says something of the model.",
    "vacuous": "Models without what training made meet the limit as well.",
    "mechanical": "Models with shuffled weights show as much: the number follows by arithmetic.",
    "insensitive": "An effect that was planted on purpose was not seen, so its absence says nothing.",
    NOT_NEEDED: "No control could turn this answer.",
    "not defined": "The number does not exist on the control.",
    "stable": "Rounding moves the number by less than its distance from the limit.",
    WITHIN_ROUNDING: "Rounding alone could carry the number across its limit.",
    "survives": "The answer stands although many claims are asked at once (Holm, 5 %).",
}
"""What controls, rounding and the correction for many claims may answer."""

TONES = {
    **dict.fromkeys(("yes", "informative", "stable", "survives"), "holds"),
    **dict.fromkeys(("vacuous", "insensitive", "mechanical"), "uninformative"),
    **dict.fromkeys(("undecided", "turned", WITHIN_ROUNDING), "undecided"),
    "no": "does not hold",
    "failed": "error",
}
"""The verdict towards which each of a row's answers speaks; any other word speaks towards none."""

_PHRASES = {
    "does not hold": ("1 does not", "{} do not"),
    "uninformative": (
        "1 says nothing, because its control shows the same",
        "{} say nothing, because their controls show the same",
    ),
    "undecided": ("1 is undecided", "{} are undecided"),
    "not applicable": ("1 does not apply to this model", "{} do not apply to this model"),
    "error": (
        "1 could not be evaluated, because its analysis failed",
        "{} could not be evaluated, because their analyses failed",
    ),
}


def answer(verdicts: Sequence[str]) -> str:
    """All claims in one sentence.

    >>> answer(["holds", "holds", "does not hold", "undecided"])
    '2 of 4 claims hold; 1 does not; 1 is undecided.'
    """
    counts = Counter(verdicts)
    if not verdicts:
        return "No claim was evaluated."
    total = f"{len(verdicts)} claim{'s' if len(verdicts) > 1 else ''}"
    parts = [f"{counts['holds']} of {total} hold{'s' if counts['holds'] == 1 else ''}"]
    parts += [phrases[counts[v] > 1].format(counts[v]) for v, phrases in _PHRASES.items() if counts[v]]
    return "; ".join(parts) + "."


def multiplicity(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many claims were asked at once and what that changed; "" where none was decided."""
    asked = [claim for claim in claims if claim.get("p_adjusted") is not None]
    if not asked:
        return ""
    turned = [claim["id"] for claim in asked if claim["verdict"] != claim["raw"]["verdict"]]
    changed = f"that leaves {' and '.join(turned)} undecided" if turned else "that changes none of them"
    return f"Because {len(asked)} answers are asked at once, each must be surer (Holm, 5 %); {changed}."


def among(claim: Mapping[str, Any]) -> str:
    """What the correction for many claims asked at once says of one of them."""
    if claim.get("p_adjusted") is None:
        return "not asked"
    return "survives" if claim["verdict"] == claim["raw"]["verdict"] else "turned"


def orbit(found: Mapping[str, Any] | None) -> str:
    """How far exact changes of coordinates move a stored number, in one sentence; "" where that was not measured."""
    if not found:
        return ""
    reach = f"Exact changes of coordinates give {number(found['low'])} to {number(found['high'])}"
    return f"{reach}; {found['witness']} moves it furthest."


def aside(stored: Sequence[Mapping[str, Any]]) -> str:
    """The rows about stored coordinates in one clause; "" where there are none."""
    if not stored:
        return ""
    many = count(len(stored), "published number")
    verbs = "stands beside them and is" if len(stored) == 1 else "stand beside them and are"
    return f"{many} in stored coordinates {verbs} not counted."


def caution(claims: Sequence[Mapping[str, Any]]) -> str:
    """What a reader must know about controls that were not run on an answer; "" where all were.

    >>> caution([{"status": "skip", "controls": None}, {"status": "pass", "controls": {"control": {}, "noise": {}}}])
    ''
    >>> caution([{"status": "pass", "controls": {"control": {}, "noise": None}}]) == PARTLY
    True
    """
    answers = [claim["controls"] or {} for claim in claims if claim["status"] in ("pass", "fail")]
    run = [controls.get(name) is not None for controls in answers for name in CONTROLS]
    if all(run):
        return ""
    return PARTLY if any(run) else CAUTION


def shared_reason(claims: Sequence[Mapping[str, Any]]) -> str:
    """The reason that leaves most claims undecided, where it is one and the same for several; else "".

    >>> shared_reason([{"verdict": "undecided", "verdict_reason": "the text is too short"}] * 5)
    '5 claims are undecided for one reason: the text is too short.'
    """
    why = Counter(claim["verdict_reason"] for claim in claims if claim["verdict"] == "undecided")
    reason, count = max(why.items(), key=lambda item: item[1], default=(None, 0))
    return f"{count} claims are undecided for one reason: {reason}." if reason and count >= SEVERAL else ""


def margin(finding: Mapping[str, Any], noise: float | None = None) -> str:
    """How far a number is from its limit, and what move of the limit would change the answer.

    noise : how far the number moves under changes that should not move it, where that was measured.
    """
    if finding["margin"] is None:
        return ""
    distance, unit = abs(finding["margin"]), f" {finding['unit']}" if finding["unit"] else ""
    where = f" (in {finding['where']})" if finding["where"] else ""
    if distance == 0:
        return f"Exactly at the limit{where}."
    side = "inside" if finding["margin"] > 0 else "outside"
    said = f"{number(distance)}{unit} {side} the limit{where}"
    if noise:
        said += f"; rounding moves it by {number(float(f'{noise:.2g}'), 2)}"
    if finding["status"] == "inconclusive" and finding["reason"]:
        return f"{said}; {finding['reason']}."
    if not finding["threshold"] or finding["status"] not in ("pass", "fail") or finding["members"] or finding["test"]:
        return f"{said}."
    at = flips_at(finding)
    away = abs(at - finding["threshold"]) / abs(finding["threshold"])
    return f"{said}; the answer changes at a limit of {number(at)}{f', {percent(away)} away' if away < 2 else ''}."


def flips_at(finding: Mapping[str, Any]) -> float:
    """The limit nearest to the one given at which the answer is no longer what it is.

    It is the nearest end of the interval, or the number itself where there is none. A pass whose interval is held
    against another bound rests, as to this limit, on the number alone.
    """
    ends = [finding["observed"]]
    by_interval = finding["interval_bound"] in (None, finding["threshold"])
    if finding["interval"] and (finding["status"] == "fail" or by_interval):
        ends += finding["interval"]
    return min(ends, key=lambda end: abs(finding["threshold"] - end))


def counted(findings: Sequence[Mapping[str, Any]], minimum: Mapping[str, float]) -> str:
    """What was counted and how many the claim needs: "23 pairs (needs 4); 24 layers"."""
    counts: dict[str, float] = {}
    for finding in findings:
        for name, count in finding["n"].items():
            counts[name] = min(count, counts.get(name, count))
    parts = []
    for name in [*(m for m in minimum if m not in counts), *counts]:
        needed = f" (needs {stated(minimum[name])})" if name in minimum else ""
        many, what = number(counts.get(name, 0)), name.replace("_", " ")
        parts.append(f"{what} {many}{needed}" if name == "side" else f"{many} {what}{needed}")
    return "; ".join(parts)


def identities(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """How many identities hold, of those that were asked."""
    asked = [o for o in outcomes if o["status"] != "skip"]
    if not asked:
        return "no identity was checked"
    return f"{sum(o['status'] == 'pass' for o in asked)} of {len(asked)} identities hold"


def integrity(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """All identities in one sentence, with the one closest to its tolerance."""
    asked = [o for o in outcomes if o["status"] != "skip"]
    if not asked:
        return "No identity was checked."
    ratios = [
        (abs(f["observed"]) / f["threshold"], f)
        for o in asked
        for f in o["findings"]
        if f["observed"] is not None and f["threshold"]
    ]
    sentence = identities(outcomes)
    if ratios:
        worst = max(ratios, key=lambda pair: pair[0])[1]
        sentence += (
            f"; the worst violation is {number(worst['observed'], 2)} of the {number(worst['threshold'], 2)} "
            f"allowed ({PATH.sub('', worst['quantity'])})"
        )
    if skipped := len(outcomes) - len(asked):
        sentence += f"; {skipped} {'was' if skipped == 1 else 'were'} not asked"
    return sentence + "."


def left_out(arrays: Sequence[str], most: int = 3) -> str:
    """The arrays that a page's copy of a record lacks; of many, the longest.

    >>> left_out(["gram (4,608 numbers)", "sym_eigs (6,144 numbers)"])
    'gram (4,608 numbers), sym_eigs (6,144 numbers)'
    """
    more = len(arrays) - most
    return ", ".join(arrays[:most]) + (f" and {more} shorter array{'s' if more > 1 else ''}" if more > 0 else "")


def sentence(text: str | None) -> str:
    """First letter up, full stop at the end; identifiers and symbols at the start are left as they are."""
    text = (text or "").strip()
    if not text:
        return ""
    first = text.split()[0]
    if first.isalpha() and first.isascii() and first.islower() and (len(first) > 1 or first == "a"):
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def closed(text: str | None) -> str:
    """A full stop at the end of a reason that follows a colon."""
    return f"{typeset(text).rstrip('.')}." if text else ""


def tally(verdicts: Sequence[str]) -> list[tuple[str, int]]:
    """Each verdict that occurs, with its count, in the order in which a reader should see them."""
    return [(word, count) for word in VERDICTS if (count := verdicts.count(word))]


def choices(verdicts: Sequence[str]) -> list[tuple[str, int]]:
    """The verdicts that a table's rows can be filtered by, each with its count; none where there is no choice."""
    found = tally(verdicts)
    return found if len(found) > 1 else []


def count(many: int, word: str) -> str:
    """How many of what.

    >>> count(1, "claim"), count(21, "claim")
    ('1 claim', '21 claims')
    """
    return f"{number(many)} {word}{'' if many == 1 else 's'}"


def tone(word: str) -> str:
    """The verdict whose sign and colour an answer has in the matrix."""
    return TONES.get(word, "not applicable")
