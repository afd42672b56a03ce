"""Dask distributed, for sites without Slurm: a cluster of this machine's processes, or one that is there.

Dask may run a task again by itself, or lose it with its scheduler; either is harmless, since a worker
first looks what is there and takes the element's lease.
"""

import logging
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyses.errors import InputError
from checks.sweep.engine import Job, Setup
from checks.sweep.engines.local import PRELOAD

OVER = ("finished", "error", "cancelled", "lost")  # states of a future that will do nothing more
CONNECT = 30  # seconds to wait for a scheduler


class Dask:
    name = "dask"
    outlives = False
    patience = 5.0
    pause = 0.5

    def __init__(self, setup: Setup):
        try:
            import dask
            import distributed
        except ImportError:
            raise InputError("--engine dask: Dask is not installed here; pip install 'fathom-geometry[dask]'") from None
        self.setup = setup
        self.cluster = None
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # of a worker that dies the driver tells
        self.futures: dict[str, Any] = {}
        # A task whose worker was killed is the driver's to try again, with its own count of attempts.
        dask.config.set({
            "distributed.scheduler.allowed-failures": 0,
            "distributed.worker.multiprocessing-method": "forkserver",
            "distributed.worker.daemon": False,
        })  # fmt: skip
        try:
            if setup.scheduler is None:
                multiprocessing.set_forkserver_preload(["distributed", *PRELOAD])
                self.cluster = distributed.LocalCluster(
                    n_workers=setup.workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    memory_limit=0,
                )
            self.client = distributed.Client(self.cluster or setup.scheduler, timeout=CONNECT)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(f"--engine dask: no scheduler at {setup.scheduler or 'this machine'} ({error})") from error

    @property
    def width(self) -> int:
        """Of what Dask itself keeps waiting at a worker, it would count the worker's death against all."""
        return max(1, sum(self.client.nthreads().values())) if self.setup.scheduler else self.setup.workers

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        from checks.sweep.engines.call import call

        names = []
        for job in jobs:
            name = f"{job.element}.{job.attempt}"
            self.futures[name] = self.client.submit(
                call,
                str(self.setup.out.resolve()),
                job,
                "dask",
                name,
                self.setup.stage,
                self.setup.threads,
                key=name,
                pure=False,
                retries=0,
            )
            names.append(name)
        return names

    def alive(self, jobs: Sequence[str]) -> dict[str, bool]:
        return {job: job in self.futures and self.futures[job].status not in OVER for job in jobs}

    def cause(self, job: str) -> str | None:
        future = self.futures.get(job)
        if future is not None and future.status == "error" and type(future.exception()).__name__ == "KilledWorker":
            return "killed"
        return None

    def log(self, job: str) -> Path | None:
        return None

    def close(self) -> None:
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()
