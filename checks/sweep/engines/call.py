"""What an engine calls in another process: light to name and to send, heavy only where it runs."""

import os
from pathlib import Path

from checks.sweep.engines import Job


def call(out: str, job: Job, engine: str, name: str | None, stage: Path | None) -> None:
    """Work on one element. `name` is the engine's for the job; None where only the job itself can tell."""
    from checks.sweep.worker import work

    work(Path(out), job.element, job.attempt, engine, name or _own_name(), stage)


def _own_name() -> str:
    """This job's name at Slurm, as submitit spells it."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", str(os.getpid()))
