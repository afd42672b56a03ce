"""What every worker's process is told before it computes, whoever started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from analyses import records
from checks.machine import threads
from checks.sweep import done
from checks.sweep.engine import Job
from checks.sweep.engines.call import call
from tests.sweep.test_sweep_plan import one_thread, planned  # noqa: F401, the fixture restores torch's threads
from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parents[2]

FRESH = """
import os, sys, types
from checks.sweep.engine import Job
from checks.sweep.engines.call import call

worker = types.ModuleType("checks.sweep.worker")
worker.work = lambda *arguments: print(*map(os.environ.get, ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")), *sys.modules)
sys.modules["checks.sweep.worker"] = worker
call("out", Job(element="e", attempt=1), "dask", "1", None, 3)
"""


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_a_process_is_told_its_threads_and_that_they_sleep_before_it_loads_a_numeric_library(given, expected):
    bare = {name: value for name, value in os.environ.items() if name not in (*threads.COUNTS, "OMP_WAIT_POLICY")}
    ended = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, env=bare | given, capture_output=True, text=True)
    policy, count, *loaded = ended.stdout.split()
    assert (policy, count) == (expected, "3")
    assert not {"numpy", "torch", "scipy"} & set(loaded)


def test_a_process_that_was_told_otherwise_leaves_the_work_to_one_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    made = planned(tmp_path / "out", tiny_checkpoint(tmp_path / "step1", layers=2, tokenizer=False))
    (element,) = made.elements
    monkeypatch.setattr("checks.sweep.worker.work", lambda *a: pytest.fail("the work was done here"))
    call(str(made.out), Job(element=element.id, attempt=1), "dask", "1", None, 1)
    assert done.missing(made.out, element) == {}
    assert records.read_record(tmp_path / "out" / "step1" / "null_residual.json")["key"]["threads"] == 1


def test_the_warning_before_slurms_time_limit_interrupts_no_analysis(monkeypatch):
    monkeypatch.setattr("checks.sweep.worker.work", lambda *a: os.kill(os.getpid(), signal.SIGUSR2))
    for name in threads.COUNTS:
        monkeypatch.setenv(name, "1")
    before = signal.signal(signal.SIGUSR2, lambda *a: pytest.fail("submitit's handler would raise"))
    try:
        call("out", Job(element="e", attempt=1), "slurm", "1", None, 1)
    finally:
        signal.signal(signal.SIGUSR2, before)
