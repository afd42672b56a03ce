"""A received result held against a new measurement: whether its numbers are what the model gives.

First the inputs are compared: other weights, another text or another precision make another question,
and its numbers are not comparable, whatever they are. Then the model is measured again with the
recorded settings, and every number is held against its own tolerance. Another number of threads,
library or machine leaves the question as it is, and is named as the likely cause of what moved.

A received result can't vouch for itself. Tolerances are those recorded with the project, or were measured here on the
same model; what it says beside its numbers is `checks.verify.claimed`, and its words `checks.report.again`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyses import records
from analyses.errors import first_line, received
from checks.reference import RECORDED
from checks.verify import comparable, modes, sentences
from checks.verify.asked_again import asked_again
from checks.verify.differences import Leaf, Status, compare, status, worst
from checks.verify.results import Result
from checks.verify.tolerances import FILE, Tolerance, read_tolerances, tolerance_of, widest

SAME, MOVED, NOT_COMPARABLE = 0, 1, 3  # exit codes; 2 is bad input
NAMED = 20  # leaves told of each analysis, worst first


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one analysis."""

    analysis: str
    status: str  # identical | within tolerance | drifted | missing | not comparable
    counts: Mapping[str, int]  # status → leaves
    inputs: Sequence[str]  # what makes it another question, in words
    environment: Sequence[str]  # what may have moved it, in words
    worst: Leaf | None
    leaves: Sequence[Leaf] = ()  # those that are not identical, worst first, at most NAMED
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The whole of it, which JSON, Markdown and JUnit are views of."""

    model: str
    analyses: Sequence[Answer]
    verdicts: Sequence[Mapping[str, Any]]  # claim, recorded, found; those that changed
    asked: Sequence[str]  # the analyses that were asked for
    notes: Sequence[str] = field(default_factory=tuple)
    faults: Sequence[str] = ()  # what is missing, extra, garbled, or not what follows from the records
    verified: Sequence[str] = ()
    unverified: Sequence[str] = ()  # what can only be believed

    @property
    def status(self) -> str:
        if self.verdicts:
            return "verdict changed"
        if self.faults:
            return "altered"
        words = ("missing", "drifted", "not comparable", "within tolerance", "identical")
        return min((answer.status for answer in self.analyses), key=words.index, default="not comparable")

    @property
    def exit_code(self) -> int:
        return {"identical": SAME, "within tolerance": SAME, "not comparable": NOT_COMPARABLE}.get(self.status, MOVED)


def verify(
    recorded: Result, found: Result, *, names: Sequence[str], moved: Sequence[Mapping[str, Any]] = ()
) -> Verification:
    """Hold two results against each other, analysis by analysis and claim by claim.

    `moved` are tolerances that were measured here on the same model; those that come with the project always count.
    """
    measured = (read_tolerances(RECORDED), *moved)
    answers = [_answer(name, recorded, found, measured) for name in names]
    like = {answer.analysis for answer in answers if answer.status != "not comparable"}
    notes = list(comparable.identity(recorded.manifest, found.manifest))
    texts = [result.manifest.get("calibration", {}) for result in (recorded, found)]
    if texts[0].get("sha256") != texts[1].get("sha256"):
        notes.append(f"the recorded text is {texts[0].get('name')}; give it with --calibration")
    if not any(measured):
        notes.append(f"there is no {FILE}: tolerances are rounding bounds, none is measured")
    if left := [name for name in recorded.found if name not in names]:
        notes.append(f"not asked for: {', '.join(left)}")
    return Verification(
        model=recorded.manifest["model"],
        analyses=answers,
        verdicts=_verdicts(recorded, found, like),
        asked=tuple(names),
        notes=tuple(notes),
    )


def _answer(name: str, recorded: Result, found: Result, measured: Sequence[Mapping[str, Any]]) -> Answer:
    old, new = recorded.found.get(name), found.found.get(name)
    if old is None or new is None:
        side = "recorded" if old is None else "measured"
        return _no(name, "missing", [], f"there is no {side} record of {name}")
    inputs, environment = comparable.causes(old, new, recorded.manifest, found.manifest)
    if inputs:
        return _no(name, "not comparable", inputs, "another question: " + "; ".join(inputs), environment)
    for side, record in (("recorded", old), ("measured", new)):
        for word in ("error", "skipped"):
            if word in record and old.get(word) != new.get(word):
                why = f"the {side} analysis was {'not run' if word == 'skipped' else 'broken off'}: {record[word]}"
                return _no(name, "missing", [], why, environment)
    # The scale of a tolerance is that of the number measured here, never of the one that was received.
    ours = found.manifest["tensors"]
    tolerance = widest(
        [tolerance_of(given, name, new, same_model=given.get("tensors") == ours) for given in measured]
    )
    leaves = compare(old, new, tolerance, modes.compared_here(name))
    leaves += modes.leaves(name, old, new, tolerance) + sentences.leaves(old, new)
    leaves += _arrays(name, recorded.folder, found.folder, old, new, tolerance)
    counts = {word: sum(leaf.status == word for leaf in leaves) for word in ("identical", "within tolerance")}
    counts |= {word: sum(leaf.status == word for leaf in leaves) for word in ("drifted", "missing")}
    rest = [leaf for leaf in leaves if leaf.status != "identical"]
    notes = []
    if old.get("shortened") and old.get("checksum") != new["checksum"]:
        notes.append(f"{len(old['shortened'])} arrays that the recorded copy lacks were not compared")
    if old.get("arrays") and old["arrays"] != new.get("arrays") and not _has_arrays(recorded.folder, old):
        notes.append("the recorded directions are not here to be compared")
    if old.get("checksum") == new["checksum"]:
        notes.append("the records are the same to the last byte")
    return Answer(
        analysis=name,
        status=status(leaves) if leaves else "identical",
        counts=counts,
        inputs=(),
        environment=environment,
        worst=worst(leaves),
        leaves=_ranked(rest)[:NAMED],
        notes=notes,
    )


def _no(name: str, word: str, inputs: Sequence[str], why: str, environment: Sequence[str] = ()) -> Answer:
    return Answer(
        analysis=name, status=word, counts={}, inputs=inputs, environment=environment, worst=None, notes=[why]
    )


def _ranked(leaves: list[Leaf]) -> list[Leaf]:
    ranked, rest = [], list(leaves)
    while rest and len(ranked) < NAMED:
        rest.remove(leaf := worst(rest))
        ranked.append(leaf)
    return ranked


def _arrays(
    name: str,
    then: Path,
    now: Path,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    tolerance: Callable[[str], Tolerance],
) -> list[Leaf]:
    """The directions beside two records, each line or space by its angle; nothing where a side has none."""
    if not old.get("arrays") or old["arrays"] == new.get("arrays"):
        return []
    if not _has_arrays(then, old) or not _has_arrays(now, new):
        return []
    import numpy as np
    from safetensors.numpy import load_file

    from checks.verify.directions import STORED, angles, turns

    try:
        files = [load_file(folder / f"{name}.safetensors") for folder in (then, now)]
    except Exception as error:  # the reader raises whatever the bytes provoke
        return [_direction(f"{name}.safetensors", "missing", first_line(error), "directions", None, 0.0)]
    leaves = []
    for key in sorted({*files[0], *files[1]}):
        one, other = files[0].get(key), files[1].get(key)
        if one is None or other is None or one.shape != other.shape:
            shapes = [None if a is None else str(a.shape) for a in (one, other)]
            leaves.append(_direction(key, "missing", *shapes, None, 0.0))
            continue
        values, path = _values(name, key, new)
        moved = tolerance(path).size if path else 0.0
        found = angles(one, other, None if values is None else np.array(values), moved)
        allowed = STORED + turns(found, moved)
        what: Status = "within tolerance" if found.largest <= allowed else "drifted"
        leaves.append(_direction(f"{key}{list(found.where)}", what, 0.0, found.largest, found.largest, allowed))
    return leaves


def _values(name: str, key: str, record: Mapping[str, Any]) -> tuple[Any, str]:
    """Singular values of the directions that a file keeps under `key`, and the pattern of their path."""
    if name == "head_grams":
        return record.get("singvals"), "singvals.*.*.*"
    if name == "delta_svd":
        spectra = [layer if key == "directions" else layer.get("centred") for layer in record.get("layers", ())]
        values = [(spectrum or {}).get("singvals") for spectrum in spectra]
        if values and all(values) and len(set(map(len, values))) == 1:
            return values, "layers.*.singvals.*" if key == "directions" else "layers.*.centred.singvals.*"
    return None, ""


def _direction(path: str, what: Status, old: Any, new: Any, moved: float | None, size: float) -> Leaf:
    source = "radians between lines, or spaces of tied singular values, stored as float32"
    return Leaf(path=path, status=what, recorded=old, found=new, moved=moved, tolerance=size, source=source)


def _has_arrays(folder: Path, record: Mapping[str, Any]) -> bool:
    return all((folder / name).exists() for name in record.get("arrays", {}))


def _verdicts(recorded: Result, found: Result, like: set[str]) -> list[dict[str, Any]]:
    """Claims and identities whose answer changed. Their controls are those recorded, on both sides."""
    if recorded.judged is None:
        return [{"id": "gates.json", "claim": "every gate", "recorded": "not there", "found": "judged"}]
    controls = {claim["id"]: claim["controls"] for claim in recorded.judged["claims"] if claim["controls"]}
    compared = {name: record for name, record in found.found.items() if name in like}
    if not compared:
        return []
    with received("gates.json"):
        judged = asked_again(recorded.judged, compared, {"claims": controls})
    changed = []
    for kind in ("integrity", "claims", "stored"):
        now = {outcome["id"]: outcome for outcome in judged[kind]}
        for then in recorded.judged.get(kind, ()):
            asked = now.get(then["id"])
            old, new = _word(then), _word(asked) if asked else "not asked"
            # What is recorded may be without findings, and a claim may read other records than those of its section.
            findings = (asked or then).get("findings", ())
            reads = {finding["path"].partition(".")[0] for finding in findings} or {then["analysis"]}
            if reads <= like and new != old:
                changed.append({"id": then["id"], "claim": then["claim"], "recorded": old, "found": new})
    return changed


def _word(outcome: Mapping[str, Any]) -> str:
    """What is compared: a claim's word before it was corrected for the number of claims, which may differ here."""
    if "raw" in outcome:
        return outcome["raw"]["verdict"]
    return outcome.get("meets") or outcome.get("verdict") or outcome["status"]


def drifting(verification: Verification) -> tuple[str, ...]:
    """Analyses of which a number moved further than it may by what was measured elsewhere."""
    return tuple(answer.analysis for answer in verification.analyses if answer.status == "drifted")


def plain(verification: Verification) -> dict[str, Any]:
    """The verification as JSON."""
    tree = records.plain(verification) | {"status": verification.status, "exit_code": verification.exit_code}
    return json.loads(json.dumps(tree))
