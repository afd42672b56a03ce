"""A received result: a folder of records, a page that carries them, or what ships with the project."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses import records
from analyses.errors import InputError
from checks.reference import REFERENCE
from checks.verify import embedded

LOG = "log.jsonl"  # of what was accepted as the recorded result, a line each time
SUBSET = 0.25  # of the recorded time at most, for `--subset`


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A recorded result: a model's folder, what a page carries, or what ships with the project."""

    folder: Path
    manifest: Mapping[str, Any]
    found: Mapping[str, Mapping[str, Any]]  # analysis → record
    judged: Mapping[str, Any] | None  # None where there is no gates.json


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


def require_accepted(recorded: Path) -> None:
    """Raise InputError if a recorded file is not as the last line of the log left it; no log, nothing to say."""
    log = recorded / LOG
    if not log.exists():
        return
    named = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["files"]
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in recorded_files(recorded).items()}
    if wrong := sorted(name for name in {*named, *hashes} if named.get(name) != hashes.get(name)):
        raise InputError(f"{recorded / wrong[0]}: changed since it was accepted; only `fathom accept` changes it")


def recorded_files(recorded: Path) -> dict[str, bytes]:
    """Name → content of what a folder of recorded results holds, without its log."""
    return {path.name: path.read_bytes() for path in sorted(recorded.glob("*.json"))}


def model_of(manifest: Mapping[str, Any]) -> str:
    """Where the recorded model is to be had; raises InputError where only its owner can say."""
    if manifest["revision"]:
        return f"{manifest['model']}@{manifest['revision']}"
    if manifest["model"] == REFERENCE.name:
        return str(REFERENCE)
    raise InputError(f"{manifest['model']} was measured from a folder, and no record says where; give it with --model")


def subset(manifest: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """The analyses that took least, up to a quarter of the recorded time; with each, those whose records it reads."""
    from analyses import registry

    times = manifest.get("timings", {})

    def cost(chosen: set[str]) -> float:
        seconds = sum(times.get(name, 0.0) for name in chosen)
        return seconds + (times.get("forward", 0.0) if registry.FORWARD & chosen else 0.0)

    chosen: set[str] = set()
    whole = cost(set(names))
    for name in sorted(names, key=lambda name: cost({name, *registry.reads(name)})):
        more = chosen | {name, *(set(registry.reads(name)) & set(names))}
        if not chosen or cost(more) <= SUBSET * whole:
            chosen = more
    return tuple(name for name in names if name in chosen)
