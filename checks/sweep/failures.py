"""Failures of a sweep: one small file an attempt, and what follows from it.

| kind    | what happened                                        | tried again               | uses up an attempt |
| ------- | ---------------------------------------------------- | ------------------------- | ------------------ |
| input   | the checkpoint or an option is at fault              | no                        | yes |
| error   | an analysis raised, as it would again                | no                        | yes |
| class   | another numeric class than the sweep's               | no                        | yes |
| differs | same key, other bytes: the number does not come again | no                       | yes |
| memory  | out of memory                                        | with twice the memory     | yes |
| killed  | the process was killed, most likely for its memory   | with twice the memory     | yes |
| time    | over the engine's time limit                         | with twice the time       | yes |
| lost    | the node or the job is gone                          | yes                       | yes |
| io      | a file or the network could not be read              | yes                       | yes |
| disk    | no room left                                         | once there is room        | no  |
| stopped | the user stopped the sweep                           | yes                       | no  |
"""

import dataclasses
import errno
import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from analyses import records, shapes
from analyses.errors import InputError
from checks.sweep.disk import FULL

ATTEMPTS = 3  # of one task, by one sweep
FINAL = frozenset({"input", "error", "class", "differs"})
FREE = frozenset({"disk", "stopped"})
HEAVY = frozenset({"memory", "killed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One attempt at one element that came to nothing, or to less than was asked."""

    element: str
    attempt: int  # from 1
    kind: str  # of the table above
    message: str  # one line
    tasks: tuple[str, ...]  # ids of the tasks whose attempt it was
    engine: str
    job: str  # the engine's name for it


def write(folder: Path, failure: Failure) -> None:
    """Keep it; the n-th file of an attempt, since a worker may have several things to say."""
    tree = records.plain(failure)
    for n in range(1000):
        path = folder / f"{failure.element}.{failure.attempt}.{n}.json"
        if not path.exists():
            records.write_json(path, tree)
            return


def read(folder: Path) -> list[Failure]:
    """All that went wrong so far, in the order of attempts."""
    found = list(_readable(sorted(folder.glob("*.json"))))
    return sorted(found, key=lambda failure: (failure.element, failure.attempt))


def read_of(folder: Path, element: str) -> list[Failure]:
    """What went wrong with one element."""
    return list(_readable(sorted(folder.glob(f"{glob.escape(element)}.*.json"))))


def _readable(paths: Iterable[Path]) -> Iterator[Failure]:
    for path in paths:
        try:
            tree = records.read_json(path)
            shapes.require(shapes.shape(__name__, "Failure"), tree, str(path))
            known = {field.name: tree[field.name] for field in dataclasses.fields(Failure)}
            yield Failure(**known | {"tasks": tuple(tree["tasks"])})
        except InputError:
            continue  # the next attempt will fail as well if it must; a torn note is no reason to stop


def forget(folder: Path, ids: Iterable[str]) -> None:
    """Give the tasks of these ids new attempts."""
    wanted = set(ids)
    for path in folder.glob("*.json"):
        if any(wanted & set(failure.tasks) for failure in _readable([path])):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class History:
    """The failures of one element's missing tasks."""

    failures: Sequence[Failure]

    def of(self, task: str) -> list[Failure]:
        return [failure for failure in self.failures if task in failure.tasks]

    def given_up(self, task: str) -> Failure | None:
        """The failure that ends the attempts at this task, if one does."""
        mine = [failure for failure in self.of(task) if failure.kind not in FREE]
        final = next((failure for failure in mine if failure.kind in FINAL), None)
        return final or (mine[-1] if len({f.attempt for f in mine}) >= ATTEMPTS else None)

    @property
    def attempts(self) -> int:
        """Number of the last attempt, 0 if there was none."""
        return max((failure.attempt for failure in self.failures), default=0)

    @property
    def memory(self) -> int:
        """By what factor to raise the memory."""
        return 2 ** len({failure.attempt for failure in self.failures if failure.kind in HEAVY})

    @property
    def time(self) -> int:
        """By what factor to raise the time limit."""
        return 2 ** len({failure.attempt for failure in self.failures if failure.kind == "time"})


def kind_of(error: BaseException) -> str:
    """What kind of failure an exception is, by itself and by what caused it."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    if any(isinstance(link, OSError) and link.errno in FULL for link in chain):
        return "disk"
    named = next((kind for link in chain if (kind := kind_named(type(link).__name__))), None)
    # Of what could not be read, a file that is not there is the user's; everything else may pass.
    passing = isinstance(chain[-1], OSError) and chain[-1].errno not in (errno.ENOENT, errno.ENOTDIR)
    return named or ("io" if passing else "input" if isinstance(error, InputError) else "error")


def kind_named(name: str) -> str | None:
    """The kind of failure that the name of an exception's class gives away.

    >>> kind_named("OutOfMemoryError"), kind_named("ValueError")
    ('memory', None)
    """
    named = {"MemoryError": "memory", "OutOfMemoryError": "memory", "Differs": "differs"}
    return named.get(name) or ("io" if name in ("TimeoutError", "ConnectionError", "OSError") else None)
