"""Does a received result come out again? Not whether a finding holds: whether its numbers are what the model gives.

First the inputs are compared: other weights, another text or another precision make another question,
and its numbers are not comparable, whatever they are. Then the model is measured again with the
recorded settings, and every number is held against its own tolerance. Another number of threads,
library or machine leaves the question as it is, and is named as the likely cause of what moved.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from analyses import records
from analyses.errors import InputError
from checks import embedded
from checks.accept import require_accepted
from checks.differences import Leaf, Status, compare, status, worst
from checks.tolerances import FILE, read_tolerances, tolerance_of

REFERENCE = Path(__file__).parent / "reference"
RECORDED = REFERENCE / "recorded"
SUBSET = 0.25  # of the recorded time at most, for `--subset`

SAME, MOVED, NOT_COMPARABLE = 0, 1, 3  # exit codes; 2 is bad input
OTHER = {
    "weights": "other weights",
    "layers": "other layers",
    "families": "other families",
    "libraries": "other libraries",
    "code": "other code",
    "inputs": "other code of what it reads",
    "threads": "another number of threads",
}
"""A part of a key that differs, where "another" and its name are not the words."""

NAMED = 20  # leaves told of each analysis, worst first

Word = Status | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A recorded result: a model's folder, what a page carries, or what ships with the project."""

    folder: Path
    manifest: Mapping[str, Any]
    found: Mapping[str, Mapping[str, Any]]  # analysis → record
    judged: Mapping[str, Any] | None  # None where there is no gates.json


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

    @property
    def status(self) -> str:
        if self.verdicts:
            return "verdict changed"
        words = ("missing", "drifted", "not comparable", "within tolerance", "identical")
        return min((answer.status for answer in self.analyses), key=words.index, default="not comparable")

    @property
    def exit_code(self) -> int:
        return {"identical": SAME, "within tolerance": SAME, "not comparable": NOT_COMPARABLE}.get(self.status, MOVED)


# --- what was received --------------------------------------------------------------------------


@contextmanager
def received(source: Path) -> Iterator[Result]:
    """A folder of results, or a page, unpacked for a while.

    Raises InputError for what is neither, for another schema, and for anything changed since it was written.
    """
    if source.is_dir():
        yield _read(source)
        return
    with tempfile.TemporaryDirectory() as name:
        for file, data in embedded.extract(source).items():
            (Path(name) / file).write_bytes(data)
        try:
            result = _read(Path(name))
        except InputError as error:
            raise InputError(str(error).replace(name, str(source))) from error
        yield result


def _read(folder: Path) -> Result:
    require_accepted(folder)
    manifest = records.read_json(folder / "manifest.json")
    if not (described := manifest.get("records")):
        raise InputError(f"{folder / 'manifest.json'}: names no records; measure again with this version of Fathom")
    found = {}
    for name, known in described.items():
        found[name] = _record(folder / f"{name}.json")
        if found[name]["checksum"] != known:
            raise InputError(f"{folder / name}.json: not the record that the manifest describes")
    gates = folder / "gates.json"
    judged = records.read_json(gates) if gates.exists() else None
    return Result(folder=folder, manifest=manifest, found=found, judged=judged)


def _record(path: Path) -> dict[str, Any]:
    """A record; of one that was shortened, the checksum is that of the whole and cannot be checked."""
    record = records.read_json(path)
    if "shortened" in record and record.get("schema_version") == records.SCHEMA_VERSION:
        return record
    return records.read_record(path, arrays=False)


def model_of(manifest: Mapping[str, Any]) -> str:
    """Where the recorded model is to be had; raises InputError where only its owner can say."""
    if manifest["revision"]:
        return f"{manifest['model']}@{manifest['revision']}"
    if manifest["model"] == REFERENCE.name:
        return str(REFERENCE)
    raise InputError(f"{manifest['model']} was measured from a folder, and no record says where; give it with --model")


def subset(manifest: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """The analyses that took least, up to a quarter of the recorded time; with each, those whose records it reads."""
    from analyses.suite import FORWARD, NEEDS

    times = manifest.get("timings", {})

    def cost(chosen: set[str]) -> float:
        own = sum(times.get(name, 0.0) for name in chosen)
        return own + (times.get("forward", 0.0) if FORWARD & chosen else 0.0)

    chosen: set[str] = set()
    whole = cost(set(names))
    for name in sorted(names, key=lambda name: cost({name, *NEEDS.get(name, ())})):
        more = chosen | {name, *(set(NEEDS.get(name, ())) & set(names))}
        if not chosen or cost(more) <= SUBSET * whole:
            chosen = more
    return tuple(name for name in names if name in chosen)


# --- measuring again ----------------------------------------------------------------------------


def again(
    result: Result,
    model: str,
    out: Path,
    *,
    names: Sequence[str],
    calibration: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Measure the model with the recorded settings into `out`, on as many threads as then.

    Parameters
    ----------
    names : analyses to be measured.
    calibration : the text, where the recorded one is not the one that ships.
    changes : settings that are to differ from the recorded ones.
    """
    from analyses.measure import measure
    from checks.manifest import manifest
    from checks.tolerances import threads

    settings = settings_of(result.manifest, names, calibration, changes)
    with threads(result.manifest["machine"]["threads"]):
        found, described = _unlike(result, model, settings)
        if asked := tuple(name for name in names if name not in found):
            measured = measure(model, out, replace(settings, only=asked), say=say)
            if measured.folder.resolve() == result.folder.resolve():
                raise InputError(f"{out}: is where the recorded result lies; choose another folder with --out")
            described = records.plain(manifest(measured))
            records.write_json(measured.folder / "manifest.json", described)
            found |= {name: records.read_record(measured.folder / f"{name}.json") for name in asked}
            out = measured.folder
    return Result(folder=out, manifest=described, found=found, judged=None)


def _unlike(result: Result, model: str, settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The analyses that would answer another question, each with its key alone, and what the model is.

    They are not measured: on a large model that would take hours, to be called not comparable.
    """
    from analyses.calibration import load_calibration
    from analyses.checkpoint import open_checkpoint
    from analyses.keys import key_of
    from analyses.measure import resolve
    from checks.environment import machine

    checkpoint, text = open_checkpoint(model), load_calibration(settings.calibration)
    files, tensors = checkpoint.examine()
    described = {"model": checkpoint.name, "revision": checkpoint.revision, "files": files, "tensors": tensors}
    described |= {"machine": machine(), "calibration": {"name": text.name, "sha256": text.sha256}}
    settings = resolve(settings, checkpoint)
    unlike = {}
    for name in settings.only:
        record = {"key": key_of(checkpoint, name, settings, text, files), "checksum": None}
        if name in result.found and _parts(result.found[name], record, result.manifest, described)[0]:
            unlike[name] = record
    return unlike, described


def settings_of(
    manifest: Mapping[str, Any], names: Sequence[str], text: Path | None, changes: Mapping[str, Any] | None = None
) -> Any:
    """The recorded settings, for these analyses; the device is the processor where the recorded one is not here."""
    import torch

    from analyses.suite import Settings

    recorded = manifest["settings"]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    layers, families = recorded.get("layers", "all"), recorded.get("families", "all")
    first, _, last = layers.partition("-")
    settings = {
        "device": recorded["device"] if there[recorded["device"]] else "cpu",
        "dtype": recorded["dtype"],
        "attention": recorded["attention"],
        "seed": recorded["seed"],
        "layers": None if layers == "all" else range(int(first), int(last) + 1),
        "families": None if families == "all" else tuple(families.split(",")),
        "spectra": recorded.get("spectra", "exact"),
        "trust_remote_code": False,  # a received file is no reason to run anybody's code
        "calibration": text,
        "only": tuple(names),
    }
    return Settings(**settings | dict(changes or {}))


# --- comparing ----------------------------------------------------------------------------------


def verify(recorded: Result, found: Result, *, names: Sequence[str]) -> Verification:
    """Hold two results against each other, analysis by analysis and claim by claim."""
    measured = read_tolerances(recorded.folder, RECORDED)
    answers = [_answer(name, recorded, found, measured) for name in names]
    comparable = {answer.analysis for answer in answers if answer.status != "not comparable"}
    notes = list(_identity(recorded.manifest, found.manifest))
    texts = [result.manifest.get("calibration", {}) for result in (recorded, found)]
    if texts[0].get("sha256") != texts[1].get("sha256"):
        notes.append(f"the recorded text is {texts[0].get('name')}; give it with --calibration")
    if not measured:
        notes.append(f"there is no {FILE}: tolerances are rounding bounds, none is measured")
    if left := [name for name in recorded.found if name not in names]:
        notes.append(f"not asked for: {', '.join(left)}")
    return Verification(
        model=recorded.manifest["model"],
        analyses=answers,
        verdicts=_verdicts(recorded, found, comparable),
        asked=tuple(names),
        notes=tuple(notes),
    )


def _answer(name: str, recorded: Result, found: Result, measured: Mapping[str, Any]) -> Answer:
    old, new = recorded.found.get(name), found.found.get(name)
    if old is None or new is None:
        side = "recorded" if old is None else "measured"
        return _no(name, "missing", [], f"there is no {side} record of {name}")
    inputs, environment = _parts(old, new, recorded.manifest, found.manifest)
    if inputs:
        return _no(name, "not comparable", inputs, "another question: " + "; ".join(inputs), environment)
    for side, record in (("recorded", old), ("measured", new)):
        for word in ("error", "skipped"):
            if word in record and old.get(word) != new.get(word):
                told = f"the {side} analysis was {'not run' if word == 'skipped' else 'broken off'}: {record[word]}"
                return _no(name, "missing", [], told, environment)
    same_model = measured.get("tensors") == found.manifest["tensors"]
    leaves = compare(old, new, tolerance_of(measured, name, old, same_model=same_model))
    leaves += _arrays(name, recorded.folder, found.folder, old, new)
    counts = {word: sum(leaf.status == word for leaf in leaves) for word in ("identical", "within tolerance")}
    counts |= {word: sum(leaf.status == word for leaf in leaves) for word in ("drifted", "missing")}
    rest = [leaf for leaf in leaves if leaf.status != "identical"]
    told = []
    if old.get("shortened") and old.get("checksum") != new["checksum"]:
        told.append(f"{len(old['shortened'])} arrays that the recorded copy lacks were not compared")
    if old.get("arrays") and old["arrays"] != new.get("arrays") and not _has_arrays(recorded.folder, old):
        told.append("the recorded directions are not here to be compared")
    if old.get("checksum") == new["checksum"]:
        told.append("the records are the same to the last byte")
    return Answer(
        analysis=name,
        status=status(leaves) if leaves else "identical",
        counts=counts,
        inputs=(),
        environment=environment,
        worst=worst(leaves),
        leaves=_ranked(rest)[:NAMED],
        notes=told,
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


def _parts(
    old: Mapping[str, Any], new: Mapping[str, Any], then: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """What makes two records answers to other questions, and what only makes them other answers, in words."""
    from analyses import keys

    before, after = old["key"], new["key"]
    parts = keys.differing(before, after)
    if then.get("tensors") == now.get("tensors"):
        same = {"weights", "model"} | ({"revision"} if not {"config", "tokenizer"} & set(parts) else set())
        parts = [part for part in parts if part not in same]
    elif {"weights", "config", "tokenizer"} & set(parts) and not _from_hub(before, after):
        parts = [part for part in parts if part not in ("revision", "model")]
    questions = {*keys.INPUTS, *keys.SETTINGS, "analysis", "analysis_version"}
    inputs = [_changed(part, before, after) for part in parts if part in questions]
    environment = [_changed(part, before, after) for part in parts if part not in questions]
    for part in ("processor", "instructions", "blas", "gpu", "driver"):
        one, other = then.get("machine", {}).get(part), now.get("machine", {}).get(part)
        if one != other:
            environment.append(f"{part} {other}, then {one}")
    return inputs, environment


def _from_hub(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return any(not str(key["revision"]).startswith("sha256:") for key in (before, after))


def _changed(part: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    from analyses.keys import WORDS

    old, new = str(before.get(part, "none")), str(after.get(part, "none"))
    if len(old) >= 40 and len(new) >= 40 and part != "libraries":
        old, new = old.removeprefix("sha256:")[:12], new.removeprefix("sha256:")[:12]
    return f"{OTHER.get(part) or 'another ' + WORDS.get(part, part)} ({new}, then {old})"


def _identity(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Whether the models are one, whatever they are called."""
    called = [f"{m['model']}@{m['revision'][:12]}" if m["revision"] else m["model"] for m in (then, now)]
    same = then.get("tensors") == now.get("tensors")
    if same and called[0] != called[1]:
        yield f"{called[1]} holds the same tensors as {called[0]}"
    elif same and then["files"] != now["files"]:
        names = sorted(n for n in {*then["files"], *now["files"]} if then["files"].get(n) != now["files"].get(n))
        yield f"the same tensors; other files: {', '.join(names)}"
    elif not same:
        names = sorted(n for n in {*then["files"], *now["files"]} if then["files"].get(n) != now["files"].get(n))
        yield f"other tensors than those recorded, in {', '.join(names) or 'files of the same bytes'}"


def _arrays(name: str, then: Path, now: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Leaf]:
    """The directions beside two records, each line or space by its angle; nothing where a side has none."""
    if not old.get("arrays") or old["arrays"] == new.get("arrays"):
        return []
    if not _has_arrays(then, old) or not _has_arrays(now, new):
        return []
    import numpy as np
    from safetensors.numpy import load_file

    from checks.directions import STORED, angles

    files = [load_file(folder / f"{name}.safetensors") for folder in (then, now)]
    values = np.array(old["singvals"]) if name == "head_grams" and old.get("singvals") else None
    leaves = []
    for key in sorted({*files[0], *files[1]}):
        one, other = files[0].get(key), files[1].get(key)
        if one is None or other is None or one.shape != other.shape:
            told = [None if a is None else str(a.shape) for a in (one, other)]
            leaves.append(_direction(key, "missing", *told, None, 0.0))
            continue
        found = angles(one, other, values)
        what: Status = "within tolerance" if found.largest <= STORED else "drifted"
        leaves.append(_direction(f"{key}{list(found.where)}", what, 0.0, found.largest, found.largest, STORED))
    return leaves


def _direction(path: str, what: Status, old: Any, new: Any, moved: float | None, size: float) -> Leaf:
    source = "radians between lines, or spaces of tied singular values, stored as float32"
    return Leaf(path=path, status=what, recorded=old, found=new, moved=moved, tolerance=size, source=source)


def _has_arrays(folder: Path, record: Mapping[str, Any]) -> bool:
    return all((folder / name).exists() for name in record.get("arrays", {}))


def _verdicts(recorded: Result, found: Result, comparable: set[str]) -> list[dict[str, Any]]:
    """Claims and identities whose answer changed. Their controls are those recorded, on both sides."""
    from checks.judge import judge

    if recorded.judged is None:
        return [{"id": "gates.json", "claim": "every gate", "recorded": "not there", "found": "judged"}]
    controls = {claim["id"]: claim["controls"] for claim in recorded.judged["claims"]}
    like = {name: record for name, record in found.found.items() if name in comparable}
    if not like:
        return []
    judged = judge(like, controls)
    changed = []
    for kind, word in (("integrity", "status"), ("claims", "verdict")):
        now = {outcome["id"]: outcome for outcome in judged[kind]}
        for then in recorded.judged[kind]:
            if then["analysis"] in comparable and (new := now.get(then["id"], {}).get(word)) != then[word]:
                told = {"id": then["id"], "claim": then["claim"], "recorded": then[word], "found": new or "not asked"}
                changed.append(told)
    return changed


def plain(verification: Verification) -> dict[str, Any]:
    """The verification as JSON."""
    tree = records.plain(verification) | {"status": verification.status, "exit_code": verification.exit_code}
    return json.loads(json.dumps(tree))
