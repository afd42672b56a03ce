"""Run the analyses on one checkpoint and leave one record each on disk.

Input is checked before anything old is removed; then the records of the analyses that will run are
removed before any of them starts, so that a crash can leave a gap but never a stale number. One
analysis that fails leaves a record saying so, and the others go on.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from analyses import (
    attention_stats,
    calibration,
    delta_svd,
    forward,
    head_geometry,
    head_grams,
    null_residual,
    records,
    schedule_fit,
)
from analyses.checkpoint import Checkpoint, open_checkpoint
from analyses.errors import InputError

JUDGEMENTS = ("manifest.json", "gates.json", "report.html")  # worthless once a record below them changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything besides the checkpoint that determines the numbers."""

    device: str = "auto"  # auto | cpu | cuda | mps
    dtype: str = "float32"  # of the forward pass; auto = as stored. Weight analyses are float64
    attention: str = "eager"  # eager | sdpa
    calibration: Path | None = None  # None: the text that ships with the project
    seed: int = 0
    only: tuple[str, ...] = records.ANALYSES
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run knows beside its records, for the manifest."""

    checkpoint: Checkpoint
    folder: Path
    settings: Settings  # as resolved: no "auto" left
    files: Mapping[str, str]  # file name → sha256
    stored_dtype: str
    calibration: calibration.Calibration
    forward: forward.ForwardFacts | None  # None where no forward pass was run
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
    text = calibration.load_calibration(settings.calibration)
    say(f"{checkpoint.name}: checking {len(checkpoint.files)} tensors")
    files = checkpoint.inspect()
    stored = str(checkpoint.tensor(next(iter(checkpoint.files))).dtype).removeprefix("torch.")
    dtype = stored if settings.dtype == "auto" else settings.dtype
    folder = out / slug(source)
    settings = Settings(
        device=device,
        dtype=dtype,
        attention=settings.attention,
        calibration=settings.calibration,
        seed=settings.seed,
        only=tuple(name for name in records.ANALYSES if name in settings.only),
        trust_remote_code=settings.trust_remote_code,
    )
    _clear(folder, settings.only)

    seed, weights_on = settings.seed, "cpu" if device == "mps" else device  # mps has no float64
    passes = _forward(checkpoint, text, settings, say, debug)
    work: dict[str, Callable[[], Any]] = {
        "null_residual": lambda: null_residual.measure(checkpoint, seed=seed, device=weights_on),
        "head_grams": lambda: head_grams.measure(checkpoint, seed=seed, device=weights_on),
        "attention_stats": lambda: attention_stats.measure(
            checkpoint, passes.attention, passes.facts, seed=seed, device=weights_on
        ),
        "schedule_fit": lambda: _schedule_fit(folder, seed),
        "head_geometry": lambda: head_geometry.measure(_needed(folder, "attention_stats"), seed=seed),
        "delta_svd": lambda: delta_svd.measure(
            checkpoint, passes.needed(), passes.facts, seed=seed, device=weights_on
        ),
    }
    seconds, failures = {"forward": passes.seconds}, {}
    for name in settings.only:
        start = time.perf_counter()
        try:
            outcome = work[name]()
            record, arrays = outcome if isinstance(outcome, tuple) else (outcome, {})
            if arrays:
                records.write_bytes(folder / f"{name}.safetensors", save(dict(arrays)))
            records.write_json(folder / f"{name}.json", record)
        except Skipped as reason:
            records.write_json(folder / f"{name}.json", _placeholder(checkpoint, name, skipped=str(reason)))
        except Exception as error:  # the other analyses must still run; the record says what happened
            failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            records.write_json(folder / f"{name}.json", _placeholder(checkpoint, name, error=failures[name]))
            if debug:
                traceback.print_exc()
        seconds[name] = round(time.perf_counter() - start, 3)
        say(f"{checkpoint.name}: {name} {'failed: ' + failures[name] if name in failures else f'{seconds[name]:.1f} s'}")
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


class Skipped(Exception):
    """This analysis cannot be asked of this model; the message says why."""


@dataclass(slots=True, kw_only=True)
class _Passes:
    """What the forward pass left behind, or why there was none."""

    attention: attention_stats.AttentionProbe | None = None
    delta: delta_svd.DeltaProbe | None = None
    facts: forward.ForwardFacts | None = None
    seconds: float = 0.0
    skipped: str | None = None
    failure: Exception | None = None

    def needed(self) -> delta_svd.DeltaProbe:
        if self.skipped:
            raise Skipped(self.skipped)
        if self.failure:
            raise self.failure
        return self.delta


def _forward(
    checkpoint: Checkpoint, text: calibration.Calibration, settings: Settings, say: Callable[[str], None], debug: bool
) -> _Passes:
    """Run the model once for all the probes that the selected analyses need."""
    wanted = {"attention_stats", "delta_svd"} & set(settings.only)
    if not wanted:
        return _Passes(skipped="no forward pass was asked for")
    passes = _Passes(attention=attention_stats.AttentionProbe(), delta=delta_svd.DeltaProbe())
    start = time.perf_counter()
    try:
        passes.facts = forward.run(
            checkpoint,
            text,
            [passes.attention, passes.delta],
            dtype=settings.dtype,
            device=settings.device,
            attention=settings.attention,
            trust_remote_code=settings.trust_remote_code,
        )
    except forward.NoTokenizer as error:
        passes.skipped = str(error)
    except Exception as error:  # the weight analyses must still run; the records say what happened
        passes.failure = error
        if debug:
            traceback.print_exc()
    passes.seconds = round(time.perf_counter() - start, 3)
    say(f"{checkpoint.name}: forward pass {passes.skipped or passes.failure or f'{passes.seconds:.1f} s'}")
    return passes


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


def _needed(folder: Path, name: str) -> dict[str, Any]:
    """Another analysis' record; raises Skipped where it has none to give."""
    record = records.read_json(folder / f"{name}.json")
    if "error" in record:
        raise Skipped(f"{name} failed: {record['error']}")
    if "skipped" in record:
        raise Skipped(record["skipped"])
    return record


def _schedule_fit(folder: Path, seed: int) -> schedule_fit.ScheduleFit:
    weights = _needed(folder, "null_residual")
    try:
        attention = _needed(folder, "attention_stats")
        temperature, reason = attention["temperature"], attention["absent"].get("temperature", "")
        dtype = attention["dtype"]
    except Skipped as skipped:
        temperature, reason, dtype = None, str(skipped), weights["dtype"]
    return schedule_fit.measure(
        weights["scales"], temperature, model=weights["model"], dtype=dtype, seed=seed, no_temperature=reason
    )
