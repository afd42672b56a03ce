"""Which records must be there in the end, and with which keys?

A plan is made once, before anything runs, and written down; driver, workers and readers of the state go by it.
Of a folder the whole key is known, since its files are hashed here (once: hashes are kept by size and
time of change). Of a checkpoint on the hub its commit says the same, so the hashes of its files are left
open; everything else in the key is as sure.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analyses import records
from analyses.errors import InputError
from checks.sweep.patterns import expand
from checks.sweep.request import Wanted
from checks.sweep.sources import Source, resolve, revisions

STATE = ".sweep"  # folder of the sweep's state, in the folder over all models
OF_FILES = ("weights", "config", "tokenizer", "inputs")  # parts of a key that only the files tell
REFERENCE = Path(__file__).parents[1] / "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One record that must be there."""

    id: str  # digest of `key`
    key: Mapping[str, str | int]  # what its record's key must hold; parts that only the files tell may be missing
    reads: tuple[str, ...]  # analyses whose records it reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One checkpoint with all its tasks: what one worker does in one go."""

    id: str
    source: Source
    settings: Mapping[str, Any]  # fields of `analyses.suite.Settings`, as JSON
    threads: int
    tasks: Mapping[str, Task]  # analysis → task
    bytes: int | None  # of its files; None where only the hub knows
    hashes: Mapping[str, str]  # file name → sha256, of a folder
    shard: tuple[int, int] | None = None  # first layer and end of a piece of null_residual; None: a whole checkpoint
    after: tuple[str, ...] = ()  # elements whose results it takes up: its pieces

    def folder(self, out: Path) -> Path:
        """Where its records lie."""
        return out / STATE / "shards" / self.id if self.shard else out / self.source.slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A sweep."""

    out: Path
    elements: tuple[Element, ...]
    command: str  # that starts or completes it

    @property
    def state(self) -> Path:
        return self.out / STATE


def make(
    wanted: Sequence[Wanted], out: Path, *, threads: int, local: bool, command: str, split: bool = False
) -> Plan:
    """Resolve what is asked for into elements with keys.

    Parameters
    ----------
    split : make an element of each piece into which the headers divide a checkpoint's comparison of adjacent layers.
    local : whether the workers run on this machine, so that its devices may be asked.

    Raises
    ------
    InputError for what does not exist, and for two tasks that would write the same record.
    """
    hashes = _Hashes(out / STATE / "hashes.json")
    elements: dict[str, Element] = {}
    for want in wanted:
        pattern = str(REFERENCE) if want.pattern == REFERENCE.name and not Path(want.pattern).exists() else want.pattern
        for given in expand([pattern], revisions):
            element = _element(resolve(given), want.options, threads, hashes, local=local)
            shards = _shards(element) if split else []
            for shard in shards:
                elements.setdefault(shard.id, shard)
            element = dataclasses.replace(element, after=tuple(shard.id for shard in shards))
            elements.setdefault(element.id, element)
    hashes.keep()
    _require_distinct(elements.values())
    return Plan(out=out, elements=tuple(elements.values()), command=command)


def _element(source: Source, options: Mapping[str, Any], threads: int, hashes: "_Hashes", *, local: bool) -> Element:
    import torch

    from analyses import keys
    from analyses.calibration import load_calibration
    from analyses.checkpoint import open_checkpoint
    from analyses.measure import resolve_device, stored_dtype
    from analyses.suite import NEEDS, Settings
    from analyses.weight_files import described_files

    torch.set_num_threads(threads)  # part of every key, and of the keys of what a record was made from
    named = {field.name: options[field.name] for field in dataclasses.fields(Settings) if field.name in options}
    settings = Settings(**named | {"only": options.get("only") or records.ANALYSES})
    if settings.device == "auto" and not local:
        raise InputError("--device auto: this machine cannot say what the workers' machines have; give cpu or cuda")
    device = resolve_device(settings.device) if local else settings.device
    dtype, files, size = settings.dtype, {}, None
    if source.commit is None:
        checkpoint = open_checkpoint(source.exact)
        described = described_files(checkpoint.files, checkpoint.folder)
        files = hashes.of(described)
        size = sum(path.stat().st_size for path in described)
        dtype = stored_dtype(checkpoint) if dtype == "auto" else dtype
    settings = dataclasses.replace(settings, device=device)
    text = load_calibration(settings.calibration)
    named_only = SimpleNamespace(name=source.name, revision=source.commit)
    wanted = {*settings.only, *(needed for name in settings.only for needed in NEEDS.get(name, ()))}
    tasks = {}
    for name in records.ANALYSES:
        if name in wanted:
            resolved = dataclasses.replace(settings, dtype=dtype)
            key = dict(keys.key_of(named_only, name, resolved, text, files))
            if source.commit is not None:
                key = {part: value for part, value in key.items() if part not in OF_FILES}
                if dtype == "auto" and key["dtype"] == "auto":
                    del key["dtype"]  # as stored, which only its headers tell
            tasks[name] = Task(id=keys.digest(key), key=key, reads=NEEDS.get(name, ()))
    return Element(
        id=f"{source.slug}-{keys.digest({name: task.id for name, task in tasks.items()})[:8]}",
        source=source,
        settings=_plain(settings),
        threads=threads,
        tasks=tasks,
        bytes=size,
        hashes=files,
    )


def _shards(element: Element) -> list[Element]:
    """The pieces of a checkpoint's null_residual as elements of their own; none where it is one piece."""
    from analyses import layer_shards
    from analyses.checkpoint import open_checkpoint
    from analyses.records import digest

    task = element.tasks.get("null_residual")
    settings = settings_of(element)
    if task is None:
        return []
    if element.source.commit is not None:
        raise InputError(f"--split: {element.source.given} is on the hub; give it as a folder")
    view = open_checkpoint(element.source.exact).restricted(layers=settings.layers, families=settings.families)
    pieces = layer_shards.layer_shards(view, spectra=settings.spectra)
    shards = []
    for layers in pieces if len(pieces) > 1 else []:
        key = {**task.key, "shard": f"{layers.start}-{layers.stop - 1}"}
        id = digest(key)
        own = Task(id=id, key=key, reads=())
        name = f"{element.source.slug}.{layers.start}-{layers.stop - 1}-{id[:8]}"
        tasks, shard = {"null_residual": own}, (layers.start, layers.stop)
        shards.append(dataclasses.replace(element, id=name, tasks=tasks, shard=shard))
    return shards


def _require_distinct(elements: Iterable[Element]) -> None:
    """No two tasks may write one record with different content."""
    seen: dict[str, Element] = {}
    for element in elements:
        if element.shard:
            continue
        other = seen.setdefault(element.source.slug, element)
        if other is not element:
            one, two = other.source.given, element.source.given
            what = "two checkpoints" if one != two else "the same checkpoint with other options"
            raise InputError(
                f"{two}: {what} would write {element.source.slug}/, as {one} does; sweep one of them into another --out"
            )


class _Hashes:
    """sha256 of files, kept by path, size, inode and time of change."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.known = records.read_json(path)
        except InputError:
            self.known = {}

    def of(self, paths: Iterable[Path]) -> dict[str, str]:
        from analyses.weight_files import sha256

        found = {}
        for path in paths:
            facts = os.stat(path)
            signature = f"{path} {facts.st_size} {facts.st_ino} {facts.st_mtime_ns}"
            if signature not in self.known:
                self.known[signature] = sha256(path)
            found[path.name] = self.known[signature]
        return found

    def keep(self) -> None:
        records.write_json(self.path, self.known)


# --- on disk ------------------------------------------------------------------------------------------------------


def write(plan: Plan) -> None:
    """Keep the plan, and each element in a file of its own for its worker."""
    for element in plan.elements:
        records.write_json(plan.state / "elements" / f"{element.id}.json", element)
    order = [element.id for element in plan.elements]
    records.write_json(plan.state / "plan.json", {"elements": order, "command": plan.command})


def read(out: Path) -> Plan:
    """The plan of the last sweep into `out`; raises InputError if there was none."""
    if not (out / STATE / "plan.json").exists():
        raise InputError(f"{out}: no sweep here; start one with fathom sweep MODEL… --out {out}")
    tree = records.read_json(out / STATE / "plan.json")
    elements = tuple(read_element(out, id) for id in tree["elements"])
    return Plan(out=out, elements=elements, command=tree["command"])


def read_element(out: Path, id: str) -> Element:
    tree = records.read_json(out / STATE / "elements" / f"{id}.json")
    tasks = {name: Task(**task | {"reads": tuple(task["reads"])}) for name, task in tree["tasks"].items()}
    shard = tree["shard"] and tuple(tree["shard"])
    after = tuple(tree["after"])
    return Element(**tree | {"source": Source(**tree["source"]), "tasks": tasks, "shard": shard, "after": after})


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON; paths made absolute, since a worker may start elsewhere."""
    tree = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Path):
            value = {"path": str(value.resolve())}
        elif isinstance(value, range):
            value = {"range": [value.start, value.stop, value.step]}
        tree[field.name] = list(value) if isinstance(value, tuple) else value
    return tree


def settings_of(element: Element) -> Any:
    """The `analyses.suite.Settings` of an element."""
    from analyses.suite import Settings

    def value(stored: Any) -> Any:
        if isinstance(stored, dict):
            return Path(stored["path"]) if "path" in stored else range(*stored["range"])
        return tuple(stored) if isinstance(stored, list) else stored

    return Settings(**{name: value(stored) for name, stored in element.settings.items()})
