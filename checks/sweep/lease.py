"""Leases: files that say which process works on what, touched by their holder every few seconds.

A holder touches its lease every BEAT seconds. A lease that nobody has touched for STALE seconds is
nobody's, unless the process is seen to live. Ages are read off the clock of the file system: a file touched now
against the lease, since the clocks of two machines may differ by minutes.
"""

import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from analyses import records, shapes
from analyses.errors import InputError
from checks.sweep import process
from checks.sweep.process import Described

BEAT = 10.0  # seconds between two touches
STALE = 120.0  # seconds; a pause of the interpreter or of a file server is shorter


@dataclass(frozen=True, slots=True)
class Held:
    """What a lease says."""

    facts: Mapping[str, Any]
    age: float  # seconds since its last touch

    @property
    def ended(self) -> bool:
        """Its holder has finished, whatever came of it."""
        return "ended" in self.facts

    @property
    def lives(self) -> bool | None:
        """Whether its holder runs; None if it is silent and too far away to be seen."""
        if self.ended:
            return False
        seen = process.alive(self.facts["process"])
        if seen is not None:
            return seen
        return True if abs(self.age) < STALE else None  # one touched in the future was not touched by its holder


class Facts(TypedDict):
    """What is written in a lease."""

    process: Described
    token: str
    element: NotRequired[str]
    attempt: NotRequired[int]
    engine: NotRequired[str]
    job: NotRequired[str]
    started: NotRequired[float]
    done: NotRequired[int]
    ended: NotRequired[dict[str, Any]]


def read(path: Path) -> Held | None:
    """The lease at `path`, None if there is none, or what lies there is no lease."""
    try:
        facts = records.read_json(path)
        shapes.require(shapes.shape(__name__, "Facts"), facts, str(path))
        age = _now(path.parent) - path.stat().st_mtime
    except (InputError, OSError):
        return None
    return Held(facts, age)


def _now(folder: Path) -> float:
    """The file system's clock."""
    probe = folder / f".clock.{os.getpid()}.{threading.get_ident()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now
    except OSError:  # a reader without the right to write
        return time.time()


class Lease:
    """A lease that this process holds; a context manager that keeps it young."""

    def __init__(self, path: Path, facts: Mapping[str, Any]):
        self.path, self.facts = path, dict(facts)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:  # the file server is away; the next beat may reach it
                continue

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def tell(self, **facts: Any) -> None:
        """Say more in it."""
        self.facts |= facts
        records.write_json(self.path, self.facts)

    def end(self, **outcome: Any) -> None:
        """Say that the work is over, and how it went."""
        self._stop.set()
        records.write_json(self.path, self.facts | {"ended": outcome})

    def give_back(self) -> None:
        """As if it had never been taken; needs no room on the disk."""
        self._stop.set()
        self.path.unlink(missing_ok=True)


def take(path: Path, facts: Mapping[str, Any]) -> Lease | None:
    """Take the lease at `path`; None if somebody else holds it.

    Two who find the same dead lease may both take it if they meet within an instant. Then both do the
    same work and the second to write finds the same bytes there.
    """
    mine = {**facts, "process": process.me(), "token": uuid.uuid4().hex}
    temporary = path.with_name(f".{path.name}.{mine['token']}.tmp")
    records.write_json(temporary, mine)
    try:
        os.link(temporary, path)  # fails if there is one, on every file system
    except FileExistsError:
        held = read(path)
        if held and held.lives:
            temporary.unlink()
            return None
        os.replace(temporary, path)
        if (now := read(path)) is None or now.facts["token"] != mine["token"]:
            return None
    else:
        temporary.unlink()
    return Lease(path, mine)
