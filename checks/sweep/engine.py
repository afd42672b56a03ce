"""What the driver asks of an engine, which runs the workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ENGINES = ("local", "slurm", "dask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at one element."""

    element: str
    attempt: int
    memory: int = 1  # by what factor to raise the memory
    time: int = 1  # by what factor to raise the time limit


class Busy(Exception):
    """The engine takes no jobs at the moment; it may later."""


class Engine(Protocol):
    """What the driver asks of an engine."""

    name: str
    width: int | None  # elements at a time; None where the engine has a queue of its own
    outlives: bool  # whether jobs that wait survive the driver
    patience: float  # seconds to look again for a record before it counts as not there
    pause: float  # seconds between two looks

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Start or queue these; the engine's names for them. Raises InputError for what it refuses, Busy for now."""

    def alive(self, jobs: Sequence[str]) -> dict[str, bool]:
        """Job → whether the engine has it waiting or running; without those of which it cannot tell."""

    def cause(self, job: str) -> str | None:
        """The kind of failure that ended a job, where the engine knows (`failures`)."""

    def log(self, job: str) -> Path | None:
        """What a job printed before it was at its element, whose log is another; None where the engine keeps none."""

    def close(self) -> None:
        """Let go of everything this process started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How to run workers."""

    out: Path
    workers: int  # at a time
    threads: int  # of each
    stage: Path | None = None  # on a disk of the worker's machine
    scheduler: str | None = None  # address of a Dask scheduler; None: one of our own
    memory: float | None = None  # GB of a job
    minutes: int | None = None  # time limit of a job
    partition: str | None = None
    extra: tuple[str, ...] = ()  # further options of sbatch, as KEY=VALUE
