"""Which records of an element are missing, and why: the only evidence that work is done.

A record counts if it is whole, its checksum is its own, its key holds what the plan says, and the records
that it was made from are those that lie beside it. What an engine says of a job counts nothing.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyses import records, registry
from analyses.errors import InputError
from checks.sweep.plan import Element


def missing(out: Path, element: Element) -> dict[str, str]:
    """Analysis → why its record does not count; empty if the element is done."""
    folder = element.folder(out)
    _refresh(folder)
    found: dict[str, Mapping[str, Any]] = {}
    why: dict[str, str] = {}
    for name, task in element.tasks.items():  # in the order in which they run: what is read comes first
        if not (path := folder / f"{name}.json").exists():
            why[name] = "no record"
            continue
        try:
            record = records.read_record(path)
        except InputError as error:
            why[name] = str(error)
            continue
        found[name] = record["key"]
        if parts := [part for part, value in task.key.items() if record["key"].get(part) != value]:
            why[name] = f"another {' and '.join(parts)}"
        elif failure := records.failed(record):
            why[name] = failure
        elif remade := [needed for needed in task.reads if needed in why]:
            why[name] = f"it reads {' and '.join(remade)}"
        elif task.reads and record["key"].get("inputs") != _inputs({needed: found[needed] for needed in task.reads}):
            why[name] = "it was made from other records than lie beside it"
    if not why and not element.shard and not (folder / "manifest.json").exists():
        why = {name: "the manifest is missing" for name in element.tasks}
    return why


def _inputs(keys: Mapping[str, Mapping[str, Any]]) -> str:
    """As `analyses.run.keys` has it: the keys of the records that one was made from."""
    return records.digest({name: records.digest(key) for name, key in keys.items()})


def _refresh(folder: Path) -> None:
    """Make a network file system look at the folder again, not at what it remembers of it."""
    try:
        with os.scandir(folder) as entries:
            for _ in entries:
                pass
    except OSError:
        return


def require_our_schema(out: Path, element: Element) -> None:
    """Refuse a folder whose records another Fathom wrote: they are somebody's results."""
    for name in registry.NAMES:
        path = out / element.source.slug / f"{name}.json"
        if not path.exists():
            continue
        try:
            version = records.read_json(path).get("schema_version")
        except InputError:
            continue  # torn: to be made again
        if version != records.SCHEMA_VERSION:
            ours = records.SCHEMA_VERSION
            raise InputError(f"{path}: schema version {version}, this Fathom writes {ours}; sweep into another --out")
