"""Run the analyses on one checkpoint and leave one record each on disk.

A record that is there, whole, and of the same key is not made again; for what is, the reason is told.
So an interrupted run goes on where it stopped. An old record stays until its successor is whole:
its key tells it from a current one, and who reads a folder compares keys (`checks.claims.judge`). What was
concluded from records goes before the first of them changes. One analysis that fails leaves a record
saying so, and the others go on; what cannot be written ends the run.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from analyses import records, registry
from analyses.errors import InputError
from analyses.forward.calibration import Calibration, load_calibration, tokens_for
from analyses.forward.inputs import NotMeasured, Settings, Skipped
from analyses.null_residual.pairs import settled
from analyses.progress import Tick, silent
from analyses.run import keys
from analyses.run.suite import analyse, forward_pass
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from analyses.weights.safetensors import as_file

JUDGEMENTS = ("manifest.json", "gates.json", "report.html", "junit.xml", "summary.md")
"""Worthless once a record changes. Controls name the records that they belong to, and stay."""

READS = "it reads"  # begins the reason for running what is current but for its inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run knows beside its records, for the manifest."""

    checkpoint: Checkpoint
    folder: Path
    settings: Settings  # as resolved: no "auto" left; `only` names every record that is there and current
    files: Mapping[str, str]  # file name → sha256
    tensors: str  # digest of the tensors alone, whatever their files
    stored_dtype: str
    calibration: Calibration
    forward: Mapping[str, Any] | None  # the pass's facts; None where none was run
    seconds: Mapping[str, float]  # analysis → wall time
    failures: Mapping[str, str]  # analysis → one line
    renewed: Mapping[str, str]  # analysis → why it was run; what is not in it was up to date


def slug(source: str, stack: str | None = None) -> str:
    """Name of a model's output folder: the folder's own name, or the hub id with / as --, and of two stacks the one."""
    name = Path(source).resolve().name if Path(source).exists() else source.replace("/", "--")
    return f"{name}--{stack}" if stack else name


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
    bar: Callable[[str], Tick] = lambda label: silent,
    debug: bool = False,
) -> Measured:
    """Measure one checkpoint into `out/<slug>/`: what was asked for and what that reads, where it is not up to date.

    Parameters
    ----------
    source : folder, hub id or `id@revision`.
    out : folder over all models.
    say : receives one line of progress at a time.
    bar : label → what to tell how many steps of it are done.
    debug : print the traceback of an analysis that fails.

    Raises
    ------
    InputError : before anything is written or removed, for bad input; and for what cannot be written.
    """
    checkpoint = open_checkpoint(source, stack=settings.stack)
    folder = out / slug(source, settings.stack)
    return measure_checkpoint(checkpoint, folder, settings, say=say, bar=bar, debug=debug)


def measure_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    settings: Settings,
    *,
    say: Callable[[str], None] = lambda line: None,
    bar: Callable[[str], Tick] = lambda label: silent,
    debug: bool = False,
    parts: Mapping[str, Callable[[range], Any]] | None = None,
) -> Measured:
    """`measure` of an open checkpoint into `folder`, wherever it was opened and whatever the folder is called.

    `parts` gives, by analysis, pieces that were made beforehand (`pieces`).
    """
    require_filters(checkpoint, settings)
    require_place(checkpoint, folder)
    resolve_device(settings.device)  # before the weights are read, which may take minutes
    settings = resolve(settings, checkpoint)
    text = load_calibration(settings.calibration, tokens=settings.tokens)
    say(f"{checkpoint.name}: checking {len(checkpoint.files)} tensors")
    files, content, damage = checkpoint.examine(bar(f"{checkpoint.name}: checking"))
    checkpoint = replace(checkpoint, remarks=(*checkpoint.remarks, *damage))
    wanted = registry.with_read(settings.only)
    own = {name: keys.key_of(checkpoint, name, settings, text, files) for name in registry.NAMES}
    why = _outdated(folder, {name: own[name] for name in wanted})
    # What an earlier run left and this one would leave too belongs to the result.
    there = tuple(name for name in own if name in wanted or outdated(folder / f"{name}.json", own[name]) is None)
    for name in wanted:
        say(f"{checkpoint.name}: {name} " + (f"to be run: {why[name]}" if name in why else "is up to date"))
    if why:
        _clear(folder)

    passes = forward_pass(checkpoint, text, settings, tuple(why), bar(f"{checkpoint.name}: forward pass"))
    passes.parts = parts or {}
    seconds, failures = {"forward": round(passes.seconds, 3)}, {}

    def left(name: str, **why: str) -> None:
        common = {"schema_version": records.SCHEMA_VERSION, "analysis": name, "model": checkpoint.name, "absent": {}}
        records.write_record(folder / f"{name}.json", common | why, key=own[name])

    for name in why:
        start = time.perf_counter()
        try:
            tick = bar(f"{checkpoint.name}: {name}")
            record, tensors = analyse(name, checkpoint, passes, settings, partial(_record_of, folder), tick)
            arrays = as_file(tensors) if tensors else ()
            if why[name].startswith(READS):  # of the same key, but made when what it reads had failed
                (folder / f"{name}.json").unlink(missing_ok=True)
            records.write_record(folder / f"{name}.json", record, key=own[name], arrays=arrays)
            if "incomplete" in record:
                failures[name] = record["incomplete"]
        except records.CannotWrite:
            raise
        except Skipped as reason:
            left(name, skipped=str(reason))
        except Exception as error:  # the other analyses must still run; the record says what happened
            failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            left(name, error=failures[name])
            if debug:
                traceback.print_exc()
        seconds[name] = round(time.perf_counter() - start, 3)
        ended = f"failed: {failures[name]}" if name in failures else f"{seconds[name]:.1f} s"
        say(f"{checkpoint.name}: {name} {ended}")
    return Measured(
        checkpoint=checkpoint,
        folder=folder,
        settings=replace(settings, only=there),
        files=files,
        tensors=content,
        stored_dtype=checkpoint.stored_dtype(),
        calibration=text,
        forward=_forward_facts(folder, there),
        seconds=seconds,
        failures=failures,
        renewed=why,
    )


def require_place(checkpoint: Checkpoint, folder: Path) -> None:
    """Raise InputError where records would lie among a model's own files, which have some of their names."""
    if folder.resolve() == checkpoint.folder.resolve() or (folder / "config.json").exists():
        raise InputError(f"--out {folder.parent}: {folder} holds a model and its files; choose another folder")


def require_filters(checkpoint: Checkpoint, settings: Settings) -> None:
    """Raise InputError, in one line, for layers or families that the model has not."""
    checkpoint.restricted(layers=settings.layers)
    for family in settings.families or ():
        if family not in checkpoint.families:
            why = checkpoint.absent.get(family, f"it has {', '.join(checkpoint.families)}")
            raise InputError(f"--families {family}: {checkpoint.name} has none ({why})")


def resolve(settings: Settings, checkpoint: Checkpoint) -> Settings:
    """The settings without an "auto", and the analyses in the order in which they run."""
    return replace(
        settings,
        device=resolve_device(settings.device),
        dtype=checkpoint.stored_dtype() if settings.dtype == "auto" else settings.dtype,
        only=tuple(name for name in registry.NAMES if name in settings.only),
        tokens=wanted_tokens(settings, checkpoint),
        spectra=settled(settings.spectra, checkpoint.shape.hidden),
    )


def wanted_tokens(settings: Settings, checkpoint: Checkpoint) -> int:
    """How many tokens are to be read, as `load_calibration` takes it."""
    if settings.tokens is not None:
        return settings.tokens
    return tokens_for(checkpoint.shape.hidden, own=settings.calibration is not None)


def _outdated(folder: Path, own: Mapping[str, keys.Key]) -> dict[str, str]:
    """Analysis → why its record must be made (again), in the order in which they run."""
    why: dict[str, str] = {}
    for name, key in own.items():
        if again := [needed for needed in registry.reads(name) if needed in why]:
            why[name] = f"{READS} {' and '.join(again)}"
        if reason := outdated(folder / f"{name}.json", key):
            why[name] = reason
    return why


def outdated(path: Path, key: Mapping[str, Any]) -> str | None:
    """Why the record at `path` is not the one that `key` names; None if it is there, whole and current."""
    if not path.exists():
        return "not measured yet"
    try:
        record = records.read_record(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ").removesuffix("; measure again")
    if parts := keys.differing(record["key"], key):
        return f"{keys.told(parts)} changed"
    if records.failed(record):
        return "it failed the last time"
    return None


def _clear(folder: Path) -> None:
    """Make the folder, prove that it can be written, and remove what rests on records that will change."""
    records.write_bytes(folder / ".writable", b"")
    (folder / ".writable").unlink()
    for name in JUDGEMENTS:
        (folder / name).unlink(missing_ok=True)


def _forward_facts(folder: Path, names: Sequence[str]) -> Mapping[str, Any] | None:
    found = [records.read_record(folder / f"{name}.json", arrays=False) for name in names if name in registry.FORWARD]
    return next((record["calibration"] for record in found if record.get("calibration")), None)


def _record_of(folder: Path, name: str) -> dict[str, Any]:
    """Another analysis' record from the disk; raises Skipped or NotMeasured where it has none to give."""
    if not (folder / f"{name}.json").exists():
        raise NotMeasured(f"{name} was not measured; run `fathom measure` with it first")
    record = records.read_record(folder / f"{name}.json", arrays=False)
    if "error" in record:
        raise Skipped(f"{name} failed: {record['error']}")
    if "skipped" in record:
        raise Skipped(record["skipped"])
    return record
