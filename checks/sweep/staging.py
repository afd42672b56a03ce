"""A checkpoint copied to a disk of its worker's machine: once, checked, and removed when nobody needs it.

Without a stage a worker reads where the checkpoint lies, and what is on the hub comes through the hub's own
cache. With one (a folder on the machine's own disk), the first worker of a machine copies, under a lock of
that machine; others that need the same checkpoint wait for it and share the copy; the last to leave removes
it. Who shares is known by process, so that one that was killed does not keep its copy for ever.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from analyses import records, shapes
from analyses.errors import InputError
from analyses.weights import hub
from analyses.weights.files import described_files, index, sha256
from checks.sweep import process
from checks.sweep.disk import lacking
from checks.sweep.plan import Element


@contextlib.contextmanager
def staged(element: Element, stage: Path | None) -> Iterator[Path]:
    """The folder to read the element's checkpoint from, for as long as it is needed.

    `stage` is a folder on a disk of this machine; None to read the checkpoint where it lies.

    Raises
    ------
    InputError where the checkpoint is not to be had, or is another than was planned.
    OSError(ENOSPC) where the stage has no room for it.
    """
    origin, _, _ = hub.locate(element.source.exact)
    if stage is None:
        yield origin
        return
    copy = stage / element.source.slug / _name(element)
    users = copy.with_name(f"{copy.name}.users")
    users.mkdir(parents=True, exist_ok=True)
    mine = users / f"{secrets.token_hex(8)}.json"
    with _lock(copy):
        if not copy.exists():
            _copy(origin, copy, element.hashes, stage)
        records.write_json(mine, process.me())
    try:
        yield copy
    finally:
        with _lock(copy):
            mine.unlink(missing_ok=True)
            if not element.shard and not _used(users):  # of one shard, the next may come; `clear` makes room
                shutil.rmtree(copy)


def clear(stage: Path) -> None:
    """Remove the copies that no living process of this machine uses: those of workers that were killed."""
    for users in stage.glob("*/*.users"):
        copy = users.with_name(users.name.removesuffix(".users"))
        with contextlib.suppress(Timeout), _lock(copy).acquire(blocking=False):  # who holds it is using the copy
            if not _used(users):
                shutil.rmtree(copy, ignore_errors=True)
                shutil.rmtree(_partial(copy), ignore_errors=True)


def _name(element: Element) -> str:
    """Of the copy: what determines its content."""
    exact = f"{element.source.exact} {sorted(element.hashes.items())}"
    return hashlib.sha256(exact.encode()).hexdigest()[:16]


def _partial(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.part")


def _lock(copy: Path) -> FileLock:
    """This machine's lock on one copy; the system takes it from a process that dies."""
    return FileLock(copy.with_name(f"{copy.name}.lock"))


def _used(users: Path) -> bool:
    """Whether a living process uses the copy; forgets the dead."""
    lives = False
    for path in users.glob("*.json"):
        try:
            user = records.read_json(path)
            shapes.require(shapes.shape("checks.sweep.process", "Described"), user, str(path))
            dead = process.alive(user) is False
        except InputError:
            dead = True
        if dead:
            path.unlink(missing_ok=True)
        lives |= not dead
    return lives


def _copy(origin: Path, copy: Path, hashes: Mapping[str, str], stage: Path) -> None:
    """Copy what makes a checkpoint and check each file; under another name until all are right."""
    files = described_files(index(origin).files, origin)
    needed = sum(path.stat().st_size for path in files)
    if lacking(stage, needed, origin.name):
        clear(stage)
    if why := lacking(stage, needed, origin.name):
        raise OSError(errno.ENOSPC, why)
    partial = _partial(copy)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, partial / path.name)  # what a link points to, not the link
        _require_same(path, partial / path.name, hashes.get(path.name))
    os.replace(partial, copy)


def _require_same(origin: Path, copy: Path, known: str | None) -> None:
    if known is not None:
        same = sha256(copy) == known
        if not same and sha256(origin) != known:
            raise InputError(f"{origin}: changed since the sweep was planned; start the sweep again")
    else:
        same = _matches_blob(origin, copy)
    if not same:
        raise OSError(errno.EIO, f"the copy of {origin.name} differs from the original", str(copy))


def _matches_blob(origin: Path, copy: Path) -> bool:
    """The hub's cache names a file by its content: sha256 of large files, git's sha1 of small ones."""
    blob = origin.resolve().name
    if len(blob) == 64:
        return sha256(copy) == blob
    if len(blob) == 40:
        content = copy.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == blob
    return sha256(copy) == sha256(origin)
