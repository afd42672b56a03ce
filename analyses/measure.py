"""Run the analyses on one checkpoint and leave one record each on disk.

Input is checked before anything old is removed; then the records of the analyses that will run are
removed before any of them starts, so that a crash can leave a gap but never a stale number. One
analysis that fails leaves a record saying so, and the others go on.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from analyses import records
from analyses.calibration import Calibration, load_calibration
from analyses.checkpoint import Checkpoint, open_checkpoint
from analyses.errors import InputError
from analyses.probe import ForwardFacts
from analyses.suite import NotMeasured, Settings, Skipped, analyse, forward_pass

# Worthless once a record changes.
JUDGEMENTS = ("manifest.json", "controls.json", "gates.json", "report.html", "junit.xml", "summary.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run knows beside its records, for the manifest."""

    checkpoint: Checkpoint
    folder: Path
    settings: Settings  # as resolved: no "auto" left
    files: Mapping[str, str]  # file name → sha256
    stored_dtype: str
    calibration: Calibration
    forward: ForwardFacts | None  # None where no forward pass was run
    seconds: Mapping[str, float]  # analysis → wall time
    failures: Mapping[str, str]  # analysis → one line


def slug(source: str) -> str:
    """Name of a model's output folder: the folder's own name, or the hub id with / as --."""
    return Path(source).resolve().name if Path(source).exists() else source.replace("/", "--")


def resolve_device(device: str) -> str:
    """`auto` becomes cuda, mps or cpu, whichever is there; raises InputError if the one asked for is not."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there.get(device, False):
        found = ", ".join(name for name, present in there.items() if present)
        raise InputError(f"--device {device}: not available here (found: {found})")
    return device


def measure(
    source: str,
    out: Path,
    settings: Settings,
    *,
    say: Callable[[str], None] = lambda line: None,
    debug: bool = False,
) -> Measured:
    """Measure one checkpoint into `out/<slug>/`.

    Parameters
    ----------
    source : folder, hub id or `id@revision`.
    out : folder over all models.
    say : receives one line of progress at a time.
    debug : print the traceback of an analysis that fails.

    Raises
    ------
    InputError : before anything is written or removed, for bad input.
    """
    checkpoint = open_checkpoint(source)
    device = resolve_device(settings.device)
    text = load_calibration(settings.calibration)
    say(f"{checkpoint.name}: checking {len(checkpoint.files)} tensors")
    files = checkpoint.inspect()
    stored = str(checkpoint.tensor(next(iter(checkpoint.files))).dtype).removeprefix("torch.")
    folder = out / slug(source)
    settings = replace(
        settings,
        device=device,
        dtype=stored if settings.dtype == "auto" else settings.dtype,
        only=tuple(name for name in records.ANALYSES if name in settings.only),
    )
    _clear(folder, settings.only)

    passes = forward_pass(checkpoint, text, settings, settings.only)
    seconds, failures = {"forward": round(passes.seconds, 3)}, {}
    for name in settings.only:
        start = time.perf_counter()
        try:
            record, arrays = analyse(name, checkpoint, passes, settings, lambda needed: _record_of(folder, needed))
            if arrays:
                records.write_bytes(folder / f"{name}.safetensors", save(arrays))
            records.write_json(folder / f"{name}.json", record)
        except Skipped as reason:
            records.write_json(folder / f"{name}.json", _placeholder(checkpoint, name, skipped=str(reason)))
        except Exception as error:  # the other analyses must still run; the record says what happened
            failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            records.write_json(folder / f"{name}.json", _placeholder(checkpoint, name, error=failures[name]))
            if debug:
                traceback.print_exc()
        seconds[name] = round(time.perf_counter() - start, 3)
        ended = f"failed: {failures[name]}" if name in failures else f"{seconds[name]:.1f} s"
        say(f"{checkpoint.name}: {name} {ended}")
    return Measured(
        checkpoint=checkpoint,
        folder=folder,
        settings=settings,
        files=files,
        stored_dtype=stored,
        calibration=text,
        forward=passes.facts,
        seconds=seconds,
        failures=failures,
    )


def _clear(folder: Path, names: Sequence[str]) -> None:
    """Make the folder, prove that it can be written, and remove what this run will replace."""
    records.write_bytes(folder / ".writable", b"")
    (folder / ".writable").unlink()
    for name in JUDGEMENTS:
        (folder / name).unlink(missing_ok=True)
    for name in names:
        for suffix in (".json", ".safetensors"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _placeholder(checkpoint: Checkpoint, name: str, **why: str) -> dict[str, Any]:
    return {"schema_version": records.SCHEMA_VERSION, "analysis": name, "model": checkpoint.name, "absent": {}, **why}


def _record_of(folder: Path, name: str) -> dict[str, Any]:
    """Another analysis' record from the disk; raises Skipped or NotMeasured where it has none to give."""
    if not (folder / f"{name}.json").exists():
        raise NotMeasured(f"{name} was not measured; run `fathom measure` with it first")
    record = records.read_json(folder / f"{name}.json")
    if "error" in record:
        raise Skipped(f"{name} failed: {record['error']}")
    if "skipped" in record:
        raise Skipped(record["skipped"])
    return record
