"""Whether a process that wrote a file is still alive.

A process is known by its machine, its number and its start, since numbers are used again. Of a process
elsewhere nothing can be said from here; its lease then has to speak.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

Process = dict[str, Any]
LARGEST = 2**31  # of process numbers


class Described(TypedDict):
    """A process, as it is written down."""

    host: str
    boot: str | None
    namespace: str | None
    pid: int
    start: str | None


def me() -> Process:
    """This process: host, boot and process namespace, number, and start in ticks since boot."""
    return here() | {"pid": os.getpid(), "start": _start(os.getpid())}


def here() -> Process:
    """This machine, as far as process numbers mean the same: a container or a reboot makes another."""
    return {"host": socket.gethostname(), "boot": _boot(), "namespace": _namespace()}


def alive(process: Mapping[str, Any]) -> bool | None:
    """Whether that process runs; None if it is not of this machine."""
    if any(process.get(part) != value for part, value in here().items()):
        return None
    if not 0 < process["pid"] < LARGEST:
        return False
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _start(process["pid"]) == process["start"] and not _is_zombie(process["pid"])


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; empty where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields else None


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] == ["Z"]


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
