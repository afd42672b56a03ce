"""A worker: measures one element, and writes down how it went.

Runs in a process of its own, started by whichever engine. What it imports here is what costs seconds to
import, so that a process forked from one that has imported this module starts at once.
"""

import dataclasses
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from analyses import records
from analyses.errors import InputError
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.run import keys, shards
from analyses.run.measure import measure_checkpoint
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from analyses.weights.safetensors import as_file
from checks.machine.manifest import manifest
from checks.sweep import done, failures, lease, plan
from checks.sweep.failures import Failure, kind_named, kind_of
from checks.sweep.plan import Element
from checks.sweep.staging import staged

OURS = ("threads", "libraries", "code", "analysis_version", "calibration")
"""Parts of a key that the worker's machine brings in."""


def work(out: Path, id: str, attempt: int, engine: str, job: str, stage: Path | None = None) -> None:
    """Make the records of an element that are missing; nothing if there are none, or if another process is at it.

    What a model or an analysis does wrong goes into failure records; raises CannotWrite where not even these
    have room.
    """
    element = plan.read_element(out, id)
    state = out / plan.STATE
    if not done.missing(out, element):
        return  # an engine may start again what had finished
    facts = {"element": id, "attempt": attempt, "engine": engine, "job": job}
    held = lease.take(state / "leases" / f"{id}.json", facts)
    if held is None:
        return
    start = time.monotonic()
    with held:
        try:
            wrong = _attempt(out, element, stage, plan.log_of(out, id, attempt))
            for kind, message, names in wrong:
                ids = tuple(element.tasks[name].id for name in names if name in element.tasks)
                failures.write(state / "failures", Failure(kind=kind, message=message, tasks=ids, **facts))
            held.end(seconds=round(time.monotonic() - start, 3))
        except records.CannotWrite:
            held.give_back()  # as if it had never begun: the attempt does not count
            raise


def _attempt(out: Path, element: Element, stage: Path | None, log: Path) -> list[tuple[str, str, Sequence[str]]]:
    """Measure; (kind, message, analyses) of what went wrong."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", buffering=1) as file:
        try:
            failed = _measure(out, element, stage, lambda line: print(line, file=file))
        except _OtherClass as error:
            return [("class", str(error), list(element.tasks))]
        except Exception as error:
            traceback.print_exc(file=file)
            text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            return [(kind_of(error), " ".join(text.split()), list(done.missing(out, element)))]
    return [(kind_named(why.partition(":")[0]) or "error", f"{name}: {why}", [name]) for name, why in failed.items()]


class _OtherClass(Exception):
    """This machine, or this Fathom, would give other numbers than the plan's."""


def _measure(out: Path, element: Element, stage: Path | None, say: Callable[[str], None]) -> Mapping[str, str]:
    """Analysis → what it failed with."""
    torch.set_num_threads(element.threads)
    _require_class(element)
    source = element.source
    with staged(element, stage) as folder:
        settings = plan.settings_of(element)
        opened = open_checkpoint(str(folder), stack=settings.stack)
        opened = dataclasses.replace(opened, name=source.name, revision=source.commit)
        if element.shard:
            _make_shard(opened, out, element, settings)
            return {}
        parts = _parts(out, element, opened, settings)
        measured = measure_checkpoint(opened, element.folder(out), settings, say=say, parts=parts)
        records.write_json(measured.folder / "manifest.json", manifest(measured))
    return measured.failures


def _make_shard(checkpoint: Checkpoint, out: Path, element: Element, settings: Settings) -> None:
    """Measure the shard that the element is."""
    name, layers = element.shard.analysis, element.shard.layers
    tree, tensors = shards.make(name, checkpoint, layers, settings)
    record = {
        "schema_version": records.SCHEMA_VERSION,
        "analysis": name,
        "model": checkpoint.name,
        "absent": {"shard.*": "its reason stands in the record that is made of the shards"},
        "shard": tree,
    }
    path, arrays = element.folder(out) / f"{name}.json", as_file(tensors) if tensors else ()
    records.write_record(path, record, key=element.tasks[name].key, arrays=arrays)


def _parts(
    out: Path, element: Element, checkpoint: Checkpoint, settings: Settings
) -> dict[str, Callable[[range], Any]]:
    """Analysis → its shards that were made by other workers; None for one that is not there."""
    after = [plan.read_element(out, id) for id in element.after]
    made = {(shard.shard.analysis, shard.shard.layers): shard for shard in after}

    def part(name: str, layers: range) -> Any:
        shard = made.get((name, layers))
        if shard is None or done.missing(out, shard):
            return None
        path = shard.folder(out) / f"{name}.json"
        record, arrays = records.read_record(path), path.with_suffix(".safetensors")
        stored = record["shard"], load_file(arrays) if "arrays" in record else {}
        return shards.restore(name, checkpoint, layers, settings, stored)

    return {name: partial(part, name) for name in shards.ANALYSES}


def _require_class(element: Element) -> None:
    """Refuse to put numbers of one numeric class, or of one Fathom, among those of another."""
    settings = plan.settings_of(element)
    text = load_calibration(settings.calibration, tokens=settings.tokens)
    named = SimpleNamespace(name=element.source.name, revision=element.source.commit)
    for name, task in element.tasks.items():
        key = keys.key_of(named, name, settings, text, {})
        for part in OURS:
            if key[part] != task.key[part]:
                raise _OtherClass(
                    f"{part} of {name}: {key[part]} here, {task.key[part]} when the sweep was planned; "
                    "one sweep is of one class, start it again"
                )
