"""A file of claims of your own, read and checked before anything is measured.

    [[claim]]
    id = "calm-heads"
    sentence = "Half of the heads attend within a third of the possible entropy"
    class = "presence"
    path = "heads.entropy_fraction"
    reduce = "median"
    comparator = "<="
    threshold = 0.33
    unit = ""
    reason = "A third is what the pilot on another model showed"
    minimum = { layers = 8 }
"""

import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyses.errors import InputError
from checks.claims import CLAIMS
from checks.own.paths import Readable, nearest, readable

CLASSES = ("presence", "absence", "schedule", "association")
COMPARATORS = ("<=", "<", ">=", ">")
REDUCERS = {
    "median": "median over all of them",
    "min": "the least of them",
    "max": "the largest of them",
    "share above": "share of them above `above`",
    "spearman": "rank correlation of a layer's mean with depth",
}
NEEDED = ("id", "sentence", "class", "path", "comparator", "threshold", "reason")
KNOWN = (*NEEDED, "reduce", "above", "unit", "minimum")
LARGEST = 1_000_000  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One claim as stated."""

    id: str
    sentence: str
    kind: str  # one of CLASSES
    reads: Readable
    comparator: str
    threshold: float
    reason: str
    reduce: str | None = None  # one of REDUCERS, for a path with axes
    above: float | None = None  # of "share above"
    unit: str = ""
    minimum: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of claims, all of which are sound."""

    text: str
    claims: tuple[Statement, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def read(path: Path) -> File:
    """Read a file of claims; raises InputError with the first thing that is wrong."""
    text = text_of(path)
    problems = problems_of(text)
    if problems:
        more = f" (and {len(problems) - 1} more; `fathom claims check {path}` lists them)" if len(problems) > 1 else ""
        raise InputError(f"{path}: {problems[0]}{more}")
    return parse(text)


def text_of(path: Path) -> str:
    """The content of a file; raises InputError where it is no text file of a sensible size."""
    if not path.is_file():
        raise InputError(f"{path}: no such file of claims")
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: more than {LARGEST:,} bytes; a file of claims is a page of text")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error


def parse(text: str) -> File:
    """The claims of a text that `problems_of` finds nothing wrong with."""
    known = readable()
    claims = [
        Statement(
            id=one["id"],
            sentence=one["sentence"],
            kind=one["class"],
            reads=known[one["path"]],
            comparator=one["comparator"],
            threshold=float(one["threshold"]),
            reason=one["reason"],
            reduce=one.get("reduce"),
            above=one.get("above"),
            unit=one.get("unit", known[one["path"]].unit),
            minimum=one.get("minimum", {}),
        )
        for one in tomllib.loads(text)["claim"]
    ]
    return File(text=text, claims=tuple(claims))


def problems_of(text: str) -> list[str]:
    """What is wrong with a file, a line for each claim; empty where all is sound."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [f"not TOML: {error}"]
    claims = content.get("claim")
    if not isinstance(claims, list) or not claims or not all(isinstance(one, dict) for one in claims):
        return ["no claims; expected a table [[claim]] for each"]
    if extra := sorted(set(content) - {"claim"}):
        return [f"'{extra[0]}' is not known; expected [[claim]] alone"]
    found = [f"claim {_name(i, one)}: {problem}" for i, one in enumerate(claims) if (problem := _problem(one))]
    ids = [one.get("id") for one in claims]
    found += [f"claim '{id}': stated twice" for id in dict.fromkeys(ids) if id is not None and ids.count(id) > 1]
    return found


def _name(i: int, claim: Mapping[str, Any]) -> str:
    return f"'{claim['id']}'" if isinstance(claim.get("id"), str) else str(i + 1)


def _problem(claim: Mapping[str, Any]) -> str | None:
    """The first thing that is wrong with one claim."""
    for key in NEEDED:
        if key not in claim:
            why = "; a threshold needs one, before the model is looked at" if key == "reason" else ""
            return f"has no {key}{why}"
    for key in ("id", "sentence", "class", "path", "comparator", "reason"):
        if not isinstance(claim[key], str) or not claim[key].strip():
            return f"{key} must be a text, got {claim[key]!r}"
    if extra := sorted(set(claim) - set(KNOWN)):
        return f"'{extra[0]}' is not known (there are: {', '.join(KNOWN)})"
    if claim["id"] in {gate.id for gate in CLAIMS}:
        return "is the id of a built-in claim; choose another"
    if not claim["id"].replace("-", "").replace("_", "").isalnum() or not claim["id"].isascii():
        return "an id is letters, digits, - and _"
    for key, known in (("class", CLASSES), ("comparator", COMPARATORS)):
        if claim[key] not in known:
            return f"{key} is '{claim[key]}'; expected one of {', '.join(known)}"
    if not _is_number(claim["threshold"]):
        return f"threshold must be a finite number, got {claim['threshold']!r}"
    if claim["path"] not in readable():
        return f"no path '{claim['path']}'; the nearest is {nearest(claim['path'])} (`fathom claims --list` has all)"
    if not isinstance(claim.get("unit", ""), str):
        return f"unit must be a text, got {claim['unit']!r}"
    reads = readable()[claim["path"]]
    return _reducer_problem(claim, reads) or _minimum_problem(claim.get("minimum", {})) or _uncontrolled(claim, reads)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _reducer_problem(claim: Mapping[str, Any], reads: Readable) -> str | None:
    reduce = claim.get("reduce")
    if not reads.axes:
        return f"{reads.path} is one number; leave out reduce" if reduce is not None else None
    axes = ", ".join(reads.axes)
    if reduce not in REDUCERS:
        got = "has no reduce" if reduce is None else f"reduce is '{reduce}'"
        return f"{got}, and {reads.path} goes over {axes}; expected one of {', '.join(REDUCERS)}"
    if reduce == "share above" and not _is_number(claim.get("above")):
        return "share above needs a number, above"
    if reduce != "share above" and "above" in claim:
        return "above belongs to the reducer share above"
    if reduce == "spearman" and "layer" not in reads.axes:
        return f"{reads.path} has no axis of layers to correlate with (it goes over {axes})"
    return None


def _minimum_problem(minimum: Any) -> str | None:
    sound = isinstance(minimum, dict) and all(_is_number(least) and least >= 0 for least in minimum.values())
    return None if sound else f"minimum must give numbers, as {{ layers = 8 }}, got {minimum!r}"


def _uncontrolled(claim: Mapping[str, Any], reads: Readable) -> str | None:
    """Why nothing could show that the answer means something."""
    if claim["class"] == "absence" and not planted_for(reads.path):
        paths = dict.fromkeys(c.path for g in CLAIMS if g.kind == "absence" and g.row == "model" for c in g.conditions)
        return (
            f"an absence needs a planted twin, and there is none that moves {reads.path} (there are for: "
            f"{', '.join(paths)}); state it as a presence of the opposite"
        )
    along = claim.get("reduce") == "spearman" or reads.path.startswith("schedule_fit.")
    if claim["class"] == "schedule" and not along:
        return "a schedule needs a reading along depth: reduce = \"spearman\", or a path of schedule_fit"
    return None


def planted_for(path: str) -> Sequence[str]:
    """Built-in absences that read this path, whose planted twins serve a claim of one's own."""
    return [gate.id for gate in CLAIMS if gate.kind == "absence" and any(c.path == path for c in gate.conditions)]
