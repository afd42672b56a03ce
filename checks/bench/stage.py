"""A stage of the bench: something timed, and what must be done for it."""

import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from checks.bench.spent import PER_MB

TURNS = 3
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is timed, and against what."""

    work: Callable[[], object]
    bare: Callable[[], object] | None = None  # what must be done, by bare library calls
    floor: str = ""  # what `bare` does, or what the operations are
    operations: dict[str, float] = field(default_factory=dict)  # name of a ceiling → how much of it the work needs
    facts: dict[str, float] = field(default_factory=dict)  # what else the table says
    turns: int = TURNS
    baseline: float | None = None  # MB that its peak is counted from; those of the imports if not given


def peak() -> float:
    """Largest resident memory of this process, in MB."""
    if STATUS.exists():  # getrusage counts what a parent held before this program began
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PER_MB


def peak_from_here() -> float:
    """Resident memory in MB; where the system allows it, the peak is counted anew from here."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak()
    return _status("VmRSS")


def _status(key: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) / 1024
