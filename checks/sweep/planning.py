"""The plan of a sweep: which records must be there in the end, and with which keys.

Of a folder the whole key is known, since its files are hashed here (once: hashes are kept by size and
time of change). Of a checkpoint on the hub its commit says the same, so the hashes of its files are left
open; everything else in the key is as sure.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analyses import records, registry, shapes
from analyses.errors import InputError, one_line
from checks.reference import source_of
from checks.sweep.patterns import expand
from checks.sweep.plan import STATE, Element, Plan, Shard, Task, plain_settings, settings_of
from checks.sweep.request import Wanted
from checks.sweep.sources import Source, resolve, revisions

OF_FILES = ("weights", "config", "tokenizer", "inputs")  # parts of a key that only the files tell


class Hashes:
    """sha256 of files, kept by path, size, inode and time of change; `keep` writes down what was hashed here."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.known = records.read_json(path)
            shapes.require(shapes.keyed(shapes.TEXT), self.known, str(path))
        except InputError:
            self.known = {}

    def of(self, paths: Iterable[Path]) -> dict[str, str]:
        """File name → sha256."""
        from analyses.weights.files import sha256

        hashes = {}
        for path in paths:
            facts = os.stat(path)
            signature = f"{path} {facts.st_size} {facts.st_ino} {facts.st_mtime_ns}"
            if signature not in self.known:
                self.known[signature] = sha256(path)
            hashes[path.name] = self.known[signature]
        return hashes

    def keep(self) -> None:
        records.write_json(self.path, self.known)


def make(wanted: Sequence[Wanted], out: Path, *, threads: int, local: bool, command: str, split: bool = False) -> Plan:
    """Resolve what is asked for into elements with keys.

    Parameters
    ----------
    split : make an element of each shard into which the headers divide an analysis of a checkpoint.
    local : whether the workers run on this machine, so that its devices may be asked.

    Raises
    ------
    What keeps the first model from being measured, where none can be; InputError for two tasks that would write
    the same record. Of several models, one that cannot be measured is left out and told (`Plan.refused`).
    """
    hashes = Hashes(out / STATE / "hashes.json")
    elements: dict[str, Element] = {}
    refused: dict[str, Exception] = {}
    for want in wanted:
        for given in expand([source_of(want.pattern)], revisions):
            try:
                element = _element(resolve(given), want.options, threads, hashes, local=local)
                shards = list(_shards(element)) if split else []
            except Exception as error:  # the others are measured
                refused[given] = error
                continue
            for shard in shards:
                elements.setdefault(shard.id, shard)
            element = dataclasses.replace(element, after=tuple(shard.id for shard in shards))
            elements.setdefault(element.id, element)
    hashes.keep()
    if not elements and refused:
        raise next(iter(refused.values()))
    told = {given: one_line(error) for given, error in refused.items()}
    plan = Plan(out=out, elements=tuple(elements.values()), command=command, refused=told)
    _require_distinct(plan.checkpoints)
    return plan


def _element(source: Source, options: Mapping[str, Any], threads: int, hashes: Hashes, *, local: bool) -> Element:
    """One checkpoint with the records that its options ask for."""
    import torch

    from analyses.forward.inputs import Settings
    from analyses.null_residual.pairs import settled
    from analyses.run.measure import resolve_device
    from analyses.weights.checkpoint import open_checkpoint
    from analyses.weights.files import described_files

    torch.set_num_threads(threads)  # part of every key, and of the keys of what a record was made from
    named = {field.name: options[field.name] for field in dataclasses.fields(Settings) if field.name in options}
    # One text for all of a sweep, so that its numbers can be compared: the prompts, unless a number of tokens is given.
    named["tokens"] = named.get("tokens") or 0
    settings = Settings(**named | {"only": options.get("only") or registry.NAMES})
    if settings.device == "auto" and not local:
        raise InputError("--device auto: this machine cannot say what the workers' machines have; give cpu or cuda")
    device = resolve_device(settings.device) if local else settings.device
    dtype, spectra, files, size = settings.dtype, settings.spectra, {}, None
    if source.commit is None:
        checkpoint = open_checkpoint(source.exact, stack=settings.stack)
        described = described_files(checkpoint.files, checkpoint.folder)
        files = hashes.of(described)
        size = sum(path.stat().st_size for path in described)
        dtype = checkpoint.stored_dtype() if dtype == "auto" else dtype
        spectra = settled(spectra, checkpoint.shape.hidden)
    settings = dataclasses.replace(settings, device=device)
    tasks = _tasks(source, dataclasses.replace(settings, dtype=dtype, spectra=spectra), files)
    return Element(
        id=f"{source.slug}-{records.digest({name: task.id for name, task in tasks.items()})[:8]}",
        source=source,
        settings=plain_settings(settings),
        threads=threads,
        tasks=tasks,
        bytes=size,
        hashes=files,
    )


def _tasks(source: Source, settings: Any, files: Mapping[str, str]) -> dict[str, Task]:
    """Analysis → its record, of those that the settings ask for and those that they read."""
    from analyses.forward.calibration import load_calibration
    from analyses.run import keys

    text = load_calibration(settings.calibration, tokens=settings.tokens)
    named = SimpleNamespace(name=source.name, revision=source.commit)
    wanted = registry.with_read(settings.only)
    tasks = {}
    for name in (name for name in registry.NAMES if name in wanted):
        key = dict(keys.key_of(named, name, settings, text, files))
        if source.commit is not None:
            key = {part: value for part, value in key.items() if part not in OF_FILES}
            # As stored, and as its width asks for: which only its headers tell.
            key = {part: value for part, value in key.items() if part not in ("dtype", "spectra") or value != "auto"}
        tasks[name] = Task(id=records.digest(key), key=key, reads=registry.reads(name))
    return tasks


def _shards(element: Element) -> Iterator[Element]:
    """The shards of a checkpoint's analyses as elements of their own; none of an analysis that is one shard."""
    from analyses.run.plan import assembled
    from analyses.run.shards import ANALYSES, pieces
    from analyses.weights import hub

    settings = settings_of(element)
    checkpoint = assembled(hub.describe(element.source.exact), settings.stack)
    for name in ANALYSES:
        parts = pieces(name, checkpoint, settings) if name in element.tasks else []
        for layers in parts if len(parts) > 1 else []:
            key = {**element.tasks[name].key, "shard": f"{layers.start}-{layers.stop - 1}"}
            task = Task(id=records.digest(key), key=key, reads=())
            yield dataclasses.replace(
                element,
                id=f"{element.source.slug}.{name}.{key['shard']}-{task.id[:8]}",
                tasks={name: task},
                shard=Shard(analysis=name, start=layers.start, stop=layers.stop),
            )


def _require_distinct(elements: Iterable[Element]) -> None:
    """No two tasks may write one record with different content."""
    seen: dict[str, Element] = {}
    for element in elements:
        other = seen.setdefault(element.source.slug, element)
        if other is not element:
            one, two = other.source.given, element.source.given
            what = "two checkpoints" if one != two else "the same checkpoint with other options"
            raise InputError(
                f"{two}: {what} would write {element.source.slug}/, as {one} does; sweep one of them into another --out"
            )
