"""A recorded result measured again, with its settings and on as many threads as then."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analyses import records
from analyses.errors import InputError
from checks.machine.threads import threads
from checks.verify import comparable
from checks.verify.results import Result

FEW = 8  # threads, which any machine can run


def remeasure(
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
    calibration : the text, where the recorded one is none of those that ship.
    changes : settings that are to differ from the recorded ones.
    """
    from analyses.run.measure import measure
    from checks.machine.manifest import manifest

    settings = settings_of(result.manifest, names, calibration, changes)
    with threads(count_of(result.manifest)):
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


def movements(
    result: Result,
    model: str,
    names: Sequence[str],
    *,
    calibration: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """How far the numbers of these analyses move here, on this model, when nothing that matters changes."""
    from checks.verify.tolerances import measure_tolerances

    settings = settings_of(result.manifest, names, calibration)
    with threads(count_of(result.manifest)):
        return measure_tolerances(model, settings, dtypes=(settings.dtype,), say=say)


def count_of(manifest: Mapping[str, Any]) -> int:
    """Threads to measure again with: as many as then, but no more than could be of use here."""
    return min(manifest["machine"]["threads"], max(os.cpu_count() or 1, FEW))


def _unlike(result: Result, model: str, settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The analyses that would answer another question, each with its key alone, and what the model is.

    They are not measured: on a large model that would take hours, to be called not comparable.
    """
    from analyses.forward.calibration import load_calibration
    from analyses.run.keys import key_of
    from analyses.run.measure import resolve
    from analyses.weights.checkpoint import open_checkpoint
    from checks.machine.environment import machine

    checkpoint = open_checkpoint(model, stack=settings.stack)
    settings = resolve(settings, checkpoint)
    text = load_calibration(settings.calibration, tokens=settings.tokens)
    files, tensors, _ = checkpoint.examine()
    described = {"model": checkpoint.name, "revision": checkpoint.revision, "files": files, "tensors": tensors}
    described |= {"machine": machine(), "calibration": {"name": text.name, "sha256": text.digest}}
    unlike = {}
    for name in settings.only:
        record = {"key": key_of(checkpoint, name, settings, text, files), "checksum": None}
        if name in result.found and comparable.causes(result.found[name], record, result.manifest, described)[0]:
            unlike[name] = record
    return unlike, described


def settings_of(
    manifest: Mapping[str, Any], names: Sequence[str], text: Path | None, changes: Mapping[str, Any] | None = None
) -> Any:
    """The recorded settings, for these analyses; the device is the processor where the recorded one is not here."""
    import torch

    from analyses.forward.inputs import Settings
    from checks.reference import text_of

    recorded, read = manifest["settings"], manifest["calibration"]["sha256"]
    if not re.fullmatch(r"all|\d{1,6}:\d{1,6}", recorded.get("layers", "all")) or recorded["seed"] < 0:
        told = f"layers {recorded.get('layers')}, seed {recorded['seed']}"
        raise InputError(f"manifest.json: settings: {told}: expected FIRST:END or all, and a seed from 0")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    layers, families = recorded.get("layers", "all"), recorded.get("families", "all")
    settings = {
        "device": recorded["device"] if available[recorded["device"]] else "cpu",
        "dtype": recorded["dtype"],
        "attention": recorded["attention"],
        "seed": recorded["seed"],
        "layers": None if layers == "all" else range(*map(int, layers.split(":"))),
        "families": None if families == "all" else tuple(families.split(",")),
        "spectra": recorded.get("spectra", "exact"),
        "stack": recorded.get("stack"),
        "matching": recorded.get("matching", "auto"),
        "trust_remote_code": False,  # a received file is no reason to run anybody's code
        "calibration": text or text_of(read, recorded.get("tokens", 0)),
        "tokens": recorded.get("tokens", 0),
        "only": tuple(names),
    }
    return Settings(**settings | dict(changes or {}))
