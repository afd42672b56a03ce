"""The function that an engine calls in another process: light to import here, heavy only where it runs.

A process that an engine keeps for many jobs may have loaded the numeric libraries with another number of threads than
the sweep's. They would not listen any more, so the work goes to a process of its own.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from checks.machine import threads
from checks.sweep.engine import Job

ROOT = Path(__file__).parents[3]


def call(out: str, job: Job, engine: str, name: str | None, stage: Path | None, count: int) -> None:
    """Work on one element with `count` threads. `name` is the engine's for the job; None where only that can tell."""
    if engine == "slurm":
        # At the warning before the time limit submitit raises in the midst of an analysis, which then looks as if it
        # had failed by itself. Unheard, Slurm ends the job, and the job's state says why.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    words = [out, job.element, str(job.attempt), str(count), engine, name or _own_name(), str(stage or "")]
    if "numpy" in sys.modules and not threads.are_limited(count):
        subprocess.run([sys.executable, "-m", __name__, *words], cwd=ROOT, check=True)
    else:
        _work(*words)


def _work(out: str, element: str, attempt: str, count: str, engine: str, name: str, stage: str) -> None:
    threads.limit(int(count))
    from checks.sweep.worker import work

    work(Path(out), element, int(attempt), engine, name, Path(stage) if stage else None)


def _own_name() -> str:
    """This job's name at Slurm, as submitit spells it."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", str(os.getpid()))


if __name__ == "__main__":
    _work(*sys.argv[1:])
