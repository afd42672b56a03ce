"""The engines that run workers: this machine, Slurm, and Dask."""

from checks.machine import threads
from checks.sweep.engine import Engine, Setup


def start(name: str, setup: Setup) -> Engine:
    """The engine of that name, ready. Its libraries are imported here and nowhere else."""
    threads.limit(setup.threads)  # of every process that is started from here
    match name:
        case "local":
            from checks.sweep.engines.local import Local

            return Local(setup)
        case "slurm":
            from checks.sweep.engines.slurm import Slurm

            return Slurm(setup)
        case "dask":
            from checks.sweep.engines.dask import Dask

            return Dask(setup)
    raise ValueError(f"no engine {name}")
