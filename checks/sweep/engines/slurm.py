"""Slurm, through submitit: one array a submission, one array element a checkpoint.

Slurm does not start a killed task again, a restarted controller runs finished elements again, and without
accounting it forgets a job minutes after its end. None of that matters where only records count; `squeue` and
`scontrol` are asked for hints.
"""

import contextlib
import io
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyses.errors import InputError
from checks.sweep.engine import Busy, Job, Setup
from checks.sweep.engines.call import call
from checks.sweep.plan import STATE

MEMORY = 16.0  # GB of a job, where nothing else is asked for
MINUTES = 240
ENDED = {"OUT_OF_MEMORY": "memory", "TIMEOUT": "time", "DEADLINE": "time", "NODE_FAIL": "lost", "PREEMPTED": "lost"}
OUT_OF_MEMORY = ("oom-kill", "Out Of Memory")  # in what srun and slurmstepd print
PASSING = ("unable to contact", "timed out", "temporarily", "connection refused", "limit")  # of sbatch's refusals
ANSWER = 60  # seconds to wait for a controller


class Slurm:
    name = "slurm"
    width = None
    outlives = True
    patience = 60.0  # a shared file system may show a file half a minute late
    pause = 5.0

    def __init__(self, setup: Setup, *, cluster: str = "slurm"):
        try:
            import submitit
        except ImportError:
            missing = "--engine slurm: submitit is not installed here; pip install 'fathom-geometry[slurm]'"
            raise InputError(missing) from None
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise InputError("--engine slurm: there is no sbatch here; run this where jobs are submitted")
        self.setup = setup
        self.cluster = cluster
        self.logs = setup.out / STATE / "slurm"
        self.executor = submitit.AutoExecutor(folder=self.logs, cluster=cluster)

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        names: dict[int, str] = {}
        for asks in sorted({(job.memory, job.time) for job in jobs}):
            chosen = [i for i, job in enumerate(jobs) if (job.memory, job.time) == asks]
            names |= zip(chosen, self._array([jobs[i] for i in chosen], *asks), strict=True)
        return [names[i] for i in range(len(jobs))]

    def _array(self, jobs: Sequence[Job], memory: int, time: int) -> list[str]:
        setup = self.setup
        self.executor.update_parameters(
            name="fathom",
            cpus_per_task=setup.threads,
            mem_gb=(setup.memory or MEMORY) * memory,
            timeout_min=(setup.minutes or MINUTES) * time,
            **self._slurm_only(),
        )
        out = str(setup.out.resolve())
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats there what sbatch says
                started = self.executor.map_array(
                    call, *zip(*((out, job, "slurm", None, setup.stage, setup.threads) for job in jobs), strict=True)
                )
        except Exception as error:  # submitit passes on whatever sbatch said
            line = _refusal(error)
            if any(word in line.lower() for word in PASSING):
                raise Busy(line) from error
            raise InputError(f"--engine slurm: {line}") from error
        return [job.job_id for job in started]

    def _slurm_only(self) -> dict[str, Any]:
        if self.cluster != "slurm":
            return {}
        named = {"slurm_partition": self.setup.partition} if self.setup.partition else {}
        # Of a job that Slurm itself starts again when a node is lost, the driver would not know; it starts its own.
        extra = {"no_requeue": True} | dict(option.partition("=")[::2] for option in self.setup.extra)
        return {"slurm_array_parallelism": self.setup.workers, "slurm_additional_parameters": extra, **named}

    def alive(self, jobs: Sequence[str]) -> dict[str, bool]:
        if self.cluster != "slurm":
            return {}
        heads = sorted({job.partition("_")[0] for job in jobs})
        if not heads:
            return {}
        answer = _ask("squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(heads)}")
        if answer is None:
            return {}
        known = set(answer.split())
        return {job: job in known for job in jobs}

    def cause(self, job: str) -> str | None:
        answer = _ask("scontrol", "--oneliner", "show", "job", job) if self.cluster == "slurm" else None
        states = [word.removeprefix("JobState=") for word in (answer or "").split() if word.startswith("JobState=")]
        return next((ENDED[state] for state in states if state in ENDED), None) or self._printed_cause(job)

    def _printed_cause(self, job: str) -> str | None:
        """What a job step printed at its end: of one that ran out of memory, Slurm calls the job failed and no more."""
        try:
            text = self.log(job).read_text(errors="replace")
        except OSError:
            return None
        return "memory" if any(word in text for word in OUT_OF_MEMORY) else None

    def log(self, job: str) -> Path | None:
        return self.logs / f"{job}_0_log.err"

    def close(self) -> None:
        """Nothing: jobs go on without the driver, and the next one finds their records."""


def _ask(*command: str) -> str | None:
    """What a command prints; None if the controller does not answer."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        # Of jobs it has forgotten the controller says that their number is invalid: they are not there.
        return "" if "Invalid job id" in answer.stderr else None
    return answer.stdout


def _refusal(error: Exception) -> str:
    """The line in which sbatch says why."""
    text = getattr(error, "stderr", None) or str(error)
    text = text.decode() if isinstance(text, bytes) else text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else type(error).__name__)
