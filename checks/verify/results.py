"""A received result: a folder of records, a page that carries them, or what ships with the project."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyses import records, registry
from analyses.errors import InputError
from checks.claims import written
from checks.reference import REFERENCE
from checks.verify import embedded

LOG = "log.jsonl"  # of what was accepted as the recorded result, a line each time
MOST_THREADS = 1 << 16
SUBSET = 0.25  # of the recorded time at most, for `--subset`


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A recorded result: a model's folder, what a page carries, or what ships with the project."""

    folder: Path
    manifest: Mapping[str, Any]
    found: Mapping[str, Mapping[str, Any]]  # analysis → record
    judged: Mapping[str, Any] | None  # None where there is no gates.json
    kind: str = "folder"  # "folder", "page", or "recorded": as `fathom accept` keeps a result
    page: str | None = None  # report.html as it was received
    files: Mapping[str, bytes] = field(default_factory=dict)  # of NAMES, as they were received
    damaged: Mapping[str, str] = field(default_factory=dict)  # file that is missing or not as it was written → why


NEEDED = ("revision", "files", "tensors", "records", "settings", "calibration", "machine")
"""Of a manifest, what a measurement is repeated by."""


@contextmanager
def received(source: Path) -> Iterator[Result]:
    """A folder of results, or a page, unpacked for a while.

    A record that is missing or was changed since it was written is told in `damaged`. Raises InputError for what is
    neither folder nor page, for another schema, and where the manifest does not say how to measure again.
    """
    if source.is_dir():
        page = source / "report.html"
        kind = "recorded" if (source / LOG).exists() and not page.exists() else "folder"
        yield _read(source, kind, embedded.read_page(page) if page.is_file() else None)
        return
    page = embedded.read_page(source)
    with tempfile.TemporaryDirectory() as name:
        for file, data in embedded.extract(source).items():
            try:
                (Path(name) / file).write_bytes(data)
            except OSError as error:
                raise InputError(f"{name}: no room to unpack the page ({error.strerror}); set TMPDIR") from error
        try:
            result = _read(Path(name), "page", page)
        except InputError as error:
            raise InputError(str(error).replace(name, str(source))) from error
        yield result


def _read(folder: Path, kind: str, page: str | None) -> Result:
    require_accepted(folder)
    manifest = written.read(folder / "manifest.json")
    if lacking := [name for name in NEEDED if name not in manifest]:
        told = f"does not say {', '.join(lacking)}, by which it would be measured again"
        raise InputError(f"{folder / 'manifest.json'}: {told}; measure with this version of Fathom")
    if not isinstance(threads := manifest["machine"].get("threads"), int) or not 0 < threads < MOST_THREADS:
        raise InputError(f"{folder / 'manifest.json'}: machine.threads: expected a count of threads, got {threads!r}")
    found, damaged = {}, {}
    described = manifest["records"]
    there = {name for name in registry.NAMES if (folder / f"{name}.json").exists()}
    for name in [*described, *(name for name in registry.NAMES if name in there - set(described))]:
        try:
            record = _record(folder / f"{name}.json", name, whole=kind == "folder")
            if record["checksum"] != described.get(name):
                raise InputError("it is not the record that the manifest describes")
            found[name] = record
        except InputError as error:
            damaged[f"{name}.json"] = str(error).removeprefix(f"{folder / name}.json: ").split("; ")[0]
    if not found:
        told = next((f"{name}: {why}" for name, why in damaged.items()), "its manifest names no records")
        raise InputError(f"{folder}: {told}; measure again with this version of Fathom")
    gates = folder / "gates.json"
    judged = written.read(gates) if gates.exists() else None
    files = {name: path.read_bytes() for name in embedded.NAMES if (path := folder / name).is_file()}
    return Result(
        folder=folder, manifest=manifest, found=found, judged=judged, kind=kind, page=page, files=files, damaged=damaged
    )


def _record(path: Path, name: str, *, whole: bool) -> dict[str, Any]:
    """A record; of one that was shortened for a page or to be kept, the checksum is that of the whole."""
    if not path.exists():
        raise InputError("it is missing")
    record = records.read_json(path)
    records.require_record(record, str(path))
    if record["analysis"] != name:
        raise InputError(f"it is a record of {record['analysis']}")
    if "shortened" in record and whole:
        raise InputError(f"{', '.join(record['shortened'])} left out, which a record on disk never is")
    if "shortened" not in record and record["checksum"] != records.checksum(record):
        raise InputError("its checksum is not that of its content")
    return record


def require_accepted(recorded: Path) -> None:
    """Raise InputError if a recorded file is not as the last line of the log left it; no log, nothing to say."""
    log = recorded / LOG
    if not log.exists():
        return
    named = _last_accepted(log)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in recorded_files(recorded).items()}
    if wrong := sorted(name for name in {*named, *hashes} if named.get(name) != hashes.get(name)):
        raise InputError(f"{recorded / wrong[0]}: changed since it was accepted; only `fathom accept` changes it")


def _last_accepted(log: Path) -> Mapping[str, str]:
    """File → hash, as the log's last line names them."""
    try:
        if not log.is_file() or log.stat().st_size > records.LARGEST:
            raise ValueError("it is no file of ours")
        lines = log.read_bytes().splitlines()
        named = records.parse_json(lines[-1] if lines else b"", str(log)).get("files")
        if not isinstance(named, dict):
            raise ValueError("its last line names no files")
    except (OSError, ValueError) as error:
        told = str(error).removeprefix(f"{log}: ")
        raise InputError(f"{log}: cannot be read as a log of accepted results ({told}); restore it") from error
    return named


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
