"""A sweep's plan, and how it lies on the disk.

A plan is made once, before anything runs (`planning`), and written down; driver, workers and readers of the state go
by it.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from analyses import records, registry, shapes
from analyses.errors import InputError, received
from checks.sweep.sources import Source

PLAIN_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\0]{1,250}")  # of one file or folder
STATE = ".sweep"  # folder of the sweep's state, in the folder over all models


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One record that must be there."""

    id: str  # digest of `key`
    key: Mapping[str, str | int]  # what its record's key must hold; parts that only the files tell may be missing
    reads: tuple[str, ...]  # analyses whose records it reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some layers of one analysis of a checkpoint (`analyses.run.shards`)."""

    analysis: str
    start: int  # first layer
    stop: int  # layer after the last

    @property
    def layers(self) -> range:
        return range(self.start, self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One checkpoint with all its tasks, or one shard of it: what one worker does in one go."""

    id: str
    source: Source
    settings: Mapping[str, Any]  # fields of `analyses.run.suite.Settings`, as JSON
    threads: int
    tasks: Mapping[str, Task]  # analysis → task
    bytes: int | None  # of its files; None where only the hub knows
    hashes: Mapping[str, str]  # file name → sha256, of a folder
    shard: Shard | None = None  # None: a whole checkpoint
    after: tuple[str, ...] = ()  # elements whose results it takes up: its shards

    def folder(self, out: Path) -> Path:
        """Where its records lie."""
        return out / STATE / "shards" / self.id if self.shard else out / self.source.slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A sweep."""

    out: Path
    elements: tuple[Element, ...]
    command: str  # that starts or completes it
    refused: Mapping[str, str] = field(default_factory=dict)  # model → why it is no part of the sweep

    @property
    def state(self) -> Path:
        return self.out / STATE

    @property
    def checkpoints(self) -> tuple[Element, ...]:
        """Its elements without the shards, which leave no record of their own."""
        return tuple(element for element in self.elements if element.shard is None)


class Written(TypedDict):
    """`plan.json`."""

    elements: list[str]
    command: str


def log_of(out: Path, id: str, attempt: int) -> Path:
    """Where an attempt at an element prints."""
    return out / STATE / "logs" / f"{id}.{attempt}.log"


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
    path = out / STATE / "plan.json"
    tree = records.read_json(path)
    shapes.require(shapes.shape(__name__, "Written"), tree, str(path))
    elements = tuple(read_element(out, id) for id in tree["elements"])
    return Plan(out=out, elements=elements, command=tree["command"])


def read_element(out: Path, id: str) -> Element:
    if not PLAIN_NAME.fullmatch(id):
        raise InputError(f"{out / STATE / 'plan.json'}: {id!r} is no element's name; start the sweep again")
    path = out / STATE / "elements" / f"{id}.json"
    tree = records.read_json(path)
    shapes.require(shapes.shape(__name__, "Element"), tree, str(path))
    with received(str(path)):
        tasks = {name: Task(**task | {"reads": tuple(task["reads"])}) for name, task in tree["tasks"].items()}
        shard = Shard(**tree["shard"]) if tree["shard"] else None
        made = {"source": Source(**tree["source"]), "tasks": tasks, "shard": shard, "after": tuple(tree["after"])}
        element = Element(**tree | made)
        settings_of(element)
        if element.id != id or not PLAIN_NAME.fullmatch(element.source.slug) or set(tasks) - set(registry.NAMES):
            raise InputError(f"{path}: not the element {id}; start the sweep again")
    return element


def plain_settings(settings: Any) -> dict[str, Any]:
    """Settings as JSON; paths made absolute, since a worker may start elsewhere."""
    tree = {}
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, Path):
            value = {"path": str(value.resolve())}
        elif isinstance(value, range):
            value = {"range": [value.start, value.stop, value.step]}
        elif isinstance(value, tuple) and any(isinstance(part, Path) for part in value):
            value = {"paths": [str(part.resolve()) for part in value]}
        tree[each.name] = list(value) if isinstance(value, tuple) else value
    return tree


def settings_of(element: Element) -> Any:
    """The `analyses.run.suite.Settings` of an element."""
    from analyses.forward.inputs import Settings

    def value(stored: Any) -> Any:
        if isinstance(stored, dict):
            if "paths" in stored:
                return tuple(map(Path, stored["paths"]))
            return Path(stored["path"]) if "path" in stored else range(*stored["range"])
        return tuple(stored) if isinstance(stored, list) else stored

    return Settings(**{name: value(stored) for name, stored in element.settings.items()})
