"""What every record on disk has in common, and strict JSON in and out.

A record is one analysis of one model, one JSON object in one file. Each analysis module documents
its own keys in its result record; these are the keys that all of them share:

    schema_version   int, raised when a key changes its meaning
    analysis         name of the module that made it, also the file's stem
    model            the model's name, as given or as the hub spells it
    metrics          name → Metric, the numbers that claim gates read
    identities       name → Metric, worst violation of what the mathematics promises
    absent           path pattern → reason, one for every null in the record
    notes            list of sentences a reader must know to read the numbers rightly
    key              all that determined the numbers, flat (`keys`)
    arrays           name → sha256 of the safetensors file beside the record, where there is one
    checksum         sha256 of the record's canonical JSON without this key

JSON is strict: NaN and infinity never reach the disk, and a null without a reason in `absent`
(or in the `reason` beside it) is a defect of the analysis, so writing it raises.
"""

import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from analyses import registry, shapes
from analyses.errors import InputError

SCHEMA_VERSION = 1
LARGEST = 1 << 28  # bytes of a file of JSON; the records of the largest models have a third of that
MOST_LAYERS = 10_000  # that a page goes through one by one
MOST_VALUES = 15_000_000  # in one file; those of the largest models have five million, and each takes some 60 bytes

Bytes = bytes | memoryview


class CannotWrite(InputError):
    """A result that has no place: a full disk, a folder that is read-only, or none."""


class Differs(ValueError):
    """A number that did not come again: the same key, other bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of several families whose worst is judged."""

    value: float | None  # None only with a reason
    interval: tuple[float, float] | None = None  # 90 %: each end is a one-sided 95 % bound
    bonferroni: tuple[float, float] | None = None  # at 1 − 0.10/k of k families: each end holds for all of them at once
    n: Mapping[str, float] = field(default_factory=dict)  # what was counted → how many
    reason: str | None = None  # why value is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One scalar with what is needed to judge it."""

    value: float | None  # None only with a reason
    interval: tuple[float, float] | None = None  # 90 %: each end is a one-sided 95 % bound
    n: Mapping[str, float] = field(default_factory=dict)  # what was counted → how many
    where: str | None = None  # the family, layer or descriptor that decided it
    method: str = ""  # estimator and interval, in a few words
    reason: str | None = None  # why value is None
    applies: bool = True  # False where the question makes no sense for this model
    # Of a worst family: every family. Written only where there are any.
    members: Mapping[str, Member] = field(default_factory=dict, metadata={"written": "if not empty"})

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a metric must be finite or None with a reason, got {self.value} ({self.method})")
        if self.value is None and not self.reason:
            raise ValueError(f"a metric without a value needs a reason ({self.method})")


def plain(value: Any) -> Any:
    """Dataclasses, arrays and tensors as dicts, lists and Python numbers; NaN and ±inf as None.

    Shapes and key order of the input are kept; NumPy scalars become Python scalars.
    """
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if value is None or kind in (int, str, bool):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(part) for f in dataclasses.fields(value) if _written(f, part := getattr(value, f.name))}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "detach"):  # a tensor, without importing torch for it
        return _listed(value.detach().cpu(), bool(value.isfinite().all()))
    if isinstance(value, (np.ndarray, np.generic)):
        return _listed(value, value.dtype.kind in "biu" or value.dtype.kind == "f" and np.isfinite(value).all())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _listed(array: Any, finite: bool) -> Any:
    """An array's values; most arrays are finite, and their lists as they should be."""
    return array.tolist() if finite else plain(array.tolist())


def _written(of: dataclasses.Field, value: Any) -> bool:
    return of.metadata.get("written") != "if not empty" or (value is not None and len(value) > 0)


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """Dotted path of every None in a plain value; lists count from 0."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from nulls(child, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from nulls(child, f"{path}.{i}")


OPTIONAL = ("interval", "bonferroni", "where", "reason")  # keys of a Metric or Member whose null speaks for itself


def unexplained_nulls(record: Mapping[str, Any]) -> list[str]:
    """Paths of nulls that no pattern in `record["absent"]` covers (`*` matches anything)."""
    patterns = list(record.get("absent", {}))
    found = []
    for path in nulls(record):
        parent, _, key = path.rpartition(".")
        in_metric = parent.startswith(("metrics.", "identities.")) and key in (*OPTIONAL, "value")
        explained = any(fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(path, p + ".*") for p in patterns)
        if not in_metric and not explained:
            found.append(path)
    return found


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON, sorted keys, one top-level key a line; temporary name, then rename.

    Raises ValueError if a null has no reason (records only: values with an `absent` key).
    """
    tree = plain(value)
    if "absent" in tree and (missing := unexplained_nulls(tree)):
        raise ValueError(f"{path.name}: {len(missing)} nulls without a reason, first at {missing[0]}")
    write_bytes(path, as_json(tree))


def as_json(tree: Mapping[str, Any]) -> bytes:
    """The bytes that `write_json` gives a plain value."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(tree[key], allow_nan=False, sort_keys=True, separators=(',', ':'))}"
        for key in sorted(tree)
    ]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def canonical(value: Any) -> bytes:
    """The one JSON text of a plain value: sorted keys, no spaces, strict."""
    return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def digest(value: Any) -> str:
    """sha256 of a plain value's canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def checksum(record: Mapping[str, Any]) -> str:
    """sha256 of a record without its checksum."""
    return digest({k: v for k, v in record.items() if k != "checksum"})


def write_record(path: Path, record: Any, *, key: Mapping[str, Any], arrays: Sequence[Bytes] = ()) -> None:
    """Write a record with its key and its checksum, and the safetensors file beside it, whose content is `arrays`.

    The arrays go first, and the record holds their hash: whoever dies between the two leaves a pair
    that `read_record` refuses, never one that looks right.

    Where a record of the same key is there already, made by another process meanwhile, the same bytes
    are left alone, and a failure takes nothing back.

    Raises
    ------
    Differs : if it is there with other bytes. It stays.
    """
    tree = plain(record) | {"key": dict(key)}
    beside = path.with_suffix(".safetensors")
    if arrays:
        content = hashlib.sha256()
        for part in arrays:
            content.update(part)
        tree["arrays"] = {beside.name: content.hexdigest()}
    tree["checksum"] = checksum(tree)
    if (there := _current(path, key)) and (there["checksum"] == tree["checksum"] or failed(tree)):
        return
    if there:
        raise Differs(f"{path}: is there with the same key and other numbers; they do not come again")
    if arrays:
        write_bytes(beside, *arrays)
    write_json(path, tree)


def _current(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record at `path` if it is whole, of this key, and no failure."""
    try:
        record = read_record(path)
    except InputError:
        return None
    return record if record["key"] == dict(key) and not failed(record) else None


def failed(record: Mapping[str, Any]) -> str | None:
    """Why a record, or a part of it, could not be made and is to be tried again; None where it is whole."""
    return record.get("error") or record.get("incomplete")


class Common(TypedDict):
    """What every record has, also one of an analysis that was skipped or failed, or of a shard."""

    schema_version: int
    analysis: str
    model: str
    absent: dict[str, str]
    key: dict[str, str | int]
    checksum: str
    arrays: NotRequired[dict[str, str]]
    shortened: NotRequired[list[str]]
    skipped: NotRequired[str]
    error: NotRequired[str]
    incomplete: NotRequired[str]  # why a part failed that is to be tried again
    shard: NotRequired[Any]


KEPT = ("metrics", "identities", "absent", "key", "checksum", "analysis", "model")  # never shortened
WITHOUT_NUMBERS = ("skipped", "error", "shard")  # of an analysis that did not run to its end, or not alone


def read_record(path: Path, *, arrays: bool = True) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises InputError on what `read_json` and `require_record` refuse, on a record that was changed since it was
    written, and (with `arrays`) on a file beside it that is not its own.
    """
    record = read_json(path)
    require_record(record, str(path))
    if "shortened" in record or record["checksum"] != checksum(record):
        raise InputError(f"{path}: not as it was written (its checksum differs); measure again")
    for name, known in record.get("arrays", {}).items() if arrays else ():
        beside = path.with_suffix(".safetensors")
        if name != beside.name or not beside.is_file() or _sha256(beside) != known:
            raise InputError(f"{beside}: not the file that {path.name} was written with; measure again")
    return record


def require_record(record: Mapping[str, Any], where: str) -> None:
    """Raise InputError unless a record, wherever it comes from, has the shape that its analysis writes.

    Of one that was shortened, what it lists as left out may be null or missing; never what a claim is judged by.
    """
    if (version := record.get("schema_version")) != SCHEMA_VERSION:
        raise InputError(f"{where}: schema version {version}, this Fathom reads {SCHEMA_VERSION}; measure again")
    if "key" not in record or "checksum" not in record:
        raise InputError(f"{where}: no key or no checksum, as a record of an earlier Fathom; measure again")
    shapes.require(shapes.shape("analyses.records", "Common"), record, where)
    left_out = {tuple(pattern.split(".")) for pattern in record.get("shortened", ())}
    if kept := sorted(pattern[0] for pattern in left_out if pattern[0] in KEPT):
        raise InputError(f"{where}: lists {kept[0]} as left out, which no copy of a record leaves out; measure again")
    if record["analysis"] not in registry.NAMES or any(name in record for name in WITHOUT_NUMBERS):
        return
    shape = registry.row(record["analysis"]).shape()
    shapes.require(shape, record, where, absent=lambda place: _pattern(place) in left_out)
    ends = [phase["last"] for phase in (record.get("phases") or {}).values() if phase]
    if max([record.get("num_layers", 0), *ends]) > MOST_LAYERS:
        raise InputError(f"{where}: more than {MOST_LAYERS:,} layers, no model of ours; measure again")


def _pattern(place: Sequence[str]) -> tuple[str, ...]:
    """A place with `*` for the numbers of lists."""
    return tuple("*" if part.isdecimal() else part for part in place)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LEFTOVER_AGE = 3600  # seconds; a temporary file that old belongs to a run that was killed


def write_bytes(path: Path, *data: Bytes) -> None:
    """Write a file whole or not at all, its parts one after the other: in the same folder, flushed to disk, renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # process numbers repeat between machines
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_AGE:
                leftover.unlink()
        with open(temporary, "wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a folder that is a file, or a name that no file can have
            temporary.unlink(missing_ok=True)
        raise CannotWrite(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read strict JSON written by `write_json`.

    Raises InputError on a missing file, on what is no file of a size that we write, and on what `parse_json` refuses.
    """
    try:
        if not path.exists():
            raise InputError(f"{path}: no such record; run `fathom measure` first")
        if not path.is_file():
            raise InputError(f"{path}: not a file; expected JSON")
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: more than {LARGEST >> 20} MiB, no file of ours; measure again")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a record ({error.strerror}); measure again") from error
    return parse_json(data, str(path))


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """The object that strict JSON holds.

    Raises InputError on what is not JSON, is no object, holds NaN or Infinity, or more values than any file of ours.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise InputError(f"{where}: more than {MOST_VALUES:,} values, no file of ours; measure again")
    try:
        tree = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: cannot be read as a record ({error}); measure again") from error
    if not isinstance(tree, dict):
        raise InputError(f"{where}: expected an object, got {type(tree).__name__}; measure again")
    return tree
