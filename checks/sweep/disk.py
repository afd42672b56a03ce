"""Free space on a disk, looked at before anything is written there."""

import errno
import shutil
from pathlib import Path

SPARE = 1 << 28  # bytes that a disk keeps beside what is put there
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # what a system call says of a disk or a quota that is full


def lacking(folder: Path, needed: int, what: str) -> str | None:
    """Why `needed` more bytes do not fit into a folder; None if they do."""
    free = shutil.disk_usage(folder).free
    if free >= needed + SPARE:
        return None
    return f"{folder}: {free / 1e9:.2f} GB are free, and {what} needs {(needed + SPARE) / 1e9:.2f} GB"
