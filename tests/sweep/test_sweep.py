"""Eight checkpoints, two workers, and what is left when processes are killed: real ones, by their number.

The order of events differs from run to run on purpose: whatever it was, the bytes must be the same.
"""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from checks import cli
from checks.sweep import failures, lease, plan
from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parents[2]
STEPS = tuple(range(0, 800, 100))
SLOW = 240  # seconds after which a sweep of seconds has got stuck

dask = pytest.mark.skipif(not importlib.util.find_spec("distributed"), reason="no Dask (make engines)")
submitit = pytest.mark.skipif(not importlib.util.find_spec("submitit"), reason="no submitit (make engines)")

NO_SLURM = "no Slurm answers here (tests/slurm/one_machine.sh runs one)"


def has_slurm() -> bool:
    if not shutil.which("sinfo"):
        return False
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=30).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """A training series: eight checkpoints of one small model."""
    folder = tmp_path_factory.mktemp("series")
    for k, step in enumerate(STEPS):
        tiny_checkpoint(folder / f"step{step}", layers=3, seed=k, tokenizer=False)
    return folder


def command(series: Path, out: Path, *words: object, steps: str = "step*") -> list[str]:
    fixed = ("sweep", series / steps, "--only", "null_residual,head_grams", "--device", "cpu", "--out", out)
    return [sys.executable, "-m", "checks.cli", *map(str, (*fixed, *words))]


def start(series: Path, out: Path, *words: object, steps: str = "step*", **environment: str) -> subprocess.Popen:
    out.mkdir(exist_ok=True)
    with open(out / "driver.log", "a") as log:
        return subprocess.Popen(
            command(series, out, *words, steps=steps),
            cwd=ROOT,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(driver: subprocess.Popen, out: Path) -> int:
    try:
        return driver.wait(SLOW)
    except subprocess.TimeoutExpired:
        driver.kill()
        pytest.fail(f"the sweep got stuck:\n{(out / 'driver.log').read_text()}")


def results(out: Path) -> dict[str, bytes]:
    """Every file's bytes, without date and timings and what depends on them."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("step*/*") if path.name[0] != "."}
    kept = {name: content for name, content in found.items() if not name.endswith((".html", ".xml", ".md"))}
    for name in [name for name in kept if name.endswith("manifest.json")]:
        manifest = json.loads(kept[name])
        kept[name] = json.dumps({k: v for k, v in manifest.items() if k not in ("date", "timings")}).encode()
    return kept


def running(out: Path) -> list[lease.Held]:
    """Leases of workers that live."""
    held = (lease.read(path) for path in (out / plan.STATE / "leases").glob("*.json"))
    return [one for one in held if one and one.lives]


def wait_until(condition, driver: subprocess.Popen):
    end = time.monotonic() + SLOW
    while not (found := condition()):
        assert driver.poll() is None and time.monotonic() < end, "the sweep ended before it could be disturbed"
        time.sleep(0.02)
    return found


def disturb(series: Path, out: Path, *words: object, **how: str) -> int:
    """Kill a worker in mid-run, then the driver, then take up again; the last driver's exit code."""
    chance = random.Random()
    driver = start(series, out, *words, **how)

    def hit() -> bool:
        if not (lives := running(out)):
            return False
        os.kill(chance.choice(lives).facts["process"]["pid"], signal.SIGKILL)
        return True

    wait_until(hit, driver)
    wait_until(lambda: any(f.kind == "killed" for f in failures.read(out / plan.STATE / "failures")) or hit(), driver)
    wait_until(lambda: running(out), driver)
    time.sleep(chance.random() / 2)
    assert driver.poll() is None, "the sweep ended before its driver could be killed"
    driver.kill()
    driver.wait()
    return finish(start(series, out, *words, **how), out)


@pytest.fixture(scope="module")
def undisturbed(series, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert finish(start(series, out), out) == 0
    assert f"done {2 * len(STEPS)}  running 0  failed 0  missing 0" in (out / "driver.log").read_text()
    return results(out)


def single_run(model: Path, out: Path) -> dict[str, bytes]:
    """The bytes of the records of a run without a sweep."""
    words = ["measure", model, "--only", "null_residual,head_grams", "--device", "cpu", "--out", out, "--quiet"]
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each worker's, and part of the key
    try:
        assert cli.main([str(word) for word in words]) == 0
    finally:
        torch.set_num_threads(before)
    names = ("null_residual.json", "head_grams.json", "head_grams.safetensors")
    return {f"{model.name}/{name}": (out / model.name / name).read_bytes() for name in names}


def test_a_sweep_leaves_the_bytes_of_single_runs(series, undisturbed, tmp_path):
    assert single_run(series / "step300", tmp_path).items() <= undisturbed.items()


def test_killed_workers_and_a_killed_driver_change_no_byte(series, undisturbed, tmp_path):
    out = tmp_path / "out"
    assert disturb(series, out) == 0
    assert {name: undisturbed.get(name) for name in results(out)} == results(out)
    assert len(results(out)) >= len(STEPS) * 4
    assert any(failure.kind == "killed" for failure in failures.read(out / plan.STATE / "failures"))


AS_IF_LARGE = """
import importlib.util, sys, time

LIMITS = {
    "analyses.null_residual.shards": {"SHARD_BYTES": 1},
    "analyses.head_grams.shards": {"MATCH_WORK": 0, "SHARD_WORK": 1},
}


class Smaller:
    def find_spec(self, name, path, target=None):
        if name not in LIMITS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        run = spec.loader.exec_module

        def limited(module):
            run(module)
            vars(module).update(LIMITS[name])
            measure = module.measure_shard
            if name == "analyses.head_grams.shards":  # slowly enough to be killed in it
                module.measure_shard = lambda *a, **k: time.sleep(0.3) or measure(*a, **k)

        spec.loader.exec_module = limited
        return spec


sys.meta_path.insert(0, Smaller())
"""


def test_a_checkpoint_in_shards_whose_workers_and_driver_are_killed_leaves_the_bytes_of_one_run(
    tmp_path, monkeypatch
):
    # Every process that starts here takes the smallest limits of a shard, as if the checkpoint were large.
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(AS_IF_LARGE)
    tiny_checkpoint(tmp_path / "step0", layers=4, tokenizer=False)
    paths = f"{tmp_path / 'path'}{os.pathsep}{ROOT}"
    out = tmp_path / "out"
    assert disturb(tmp_path, out, "--split", steps="step0", PYTHONPATH=paths) == 0
    killed = {failure.element.split(".")[1] for failure in failures.read(out / plan.STATE / "failures")}
    assert killed & {"null_residual", "head_grams"}, "a shard's worker was killed"
    assert len(plan.read(out).elements) == 8
    monkeypatch.setattr("analyses.null_residual.shards.SHARD_BYTES", 1)
    monkeypatch.setattr("analyses.head_grams.shards.MATCH_WORK", 0)
    monkeypatch.setattr("analyses.head_grams.shards.SHARD_WORK", 1)
    assert single_run(tmp_path / "step0", tmp_path / "alone").items() <= results(out).items()


@dask
def test_the_same_on_dask(series, undisturbed, tmp_path):
    out = tmp_path / "out"
    assert disturb(series, out, "--engine", "dask") == 0
    assert {name: undisturbed.get(name) for name in results(out)} == results(out)
    assert len(results(out)) >= len(STEPS) * 4


@pytest.fixture
def cluster(tmp_path):
    """A Dask cluster that was there before; its address."""
    file, log = tmp_path / "scheduler.json", open(tmp_path / "cluster.log", "w")
    dask = [sys.executable, "-m", "dask"]
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    words = [
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *common],
        [*dask, "worker", "--nworkers", "1", "--nthreads", "1", "--local-directory", str(tmp_path / "dask"), *common],
    ]
    there = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(each, env=there, stdout=log, stderr=log, start_new_session=True) for each in words]
    wait_until(file.exists, processes[0])
    yield json.loads(file.read_text())["address"]
    for process in reversed(processes):
        process.terminate()
        process.wait(SLOW)
    log.close()


@dask
def test_the_same_on_a_dask_cluster_of_the_site(series, undisturbed, cluster, tmp_path):
    out = tmp_path / "out"
    assert disturb(series, out, "--engine", "dask", "--scheduler", cluster, steps="step{0,100,200,300,400}") == 0
    assert {name: undisturbed.get(name) for name in results(out)} == results(out)
    assert len(results(out)) >= 5 * 4


@submitit
@pytest.mark.skipif(not has_slurm(), reason=NO_SLURM)
def test_the_same_on_slurm(series, undisturbed, tmp_path):
    out = tmp_path / "out"
    assert disturb(series, out, "--engine", "slurm", "--memory", 2, "--minutes", 10, "--patience", 8) == 0
    assert {name: undisturbed.get(name) for name in results(out)} == results(out)
    assert len(results(out)) >= len(STEPS) * 4


@submitit
@pytest.mark.skipif(not has_slurm(), reason=NO_SLURM)
def test_an_unknown_partition_of_slurm_is_one_line(series, tmp_path):
    words = command(series, tmp_path / "out", "--engine", "slurm", "--partition", "nowhere", steps="step0")
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "invalid partition specified: nowhere" in ended.stderr and ended.stderr.count("\n") == 1


ASKING_OFTEN = """
import sys
from checks import cli
from checks.sweep import driver

driver.LISTING = 1.0
sys.exit(cli.main(sys.argv[1:]))
"""


@submitit
@pytest.mark.skipif(not has_slurm(), reason=NO_SLURM)
def test_a_job_that_slurm_ends_for_its_memory_comes_again_with_twice_as_much(series, undisturbed, tmp_path):
    out = tmp_path / "out"
    few = ("--engine", "slurm", "--memory", 0.1, "--minutes", 5, "--patience", 2)  # torch alone takes more to load
    words = command(series, out, *few, steps="step300")[3:]
    ended = subprocess.run([sys.executable, "-c", ASKING_OFTEN, *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert {name: undisturbed.get(name) for name in results(out)} == results(out)
    assert {failure.kind for failure in failures.read(out / plan.STATE / "failures")} <= {"memory", "killed"}
    asked = [path.read_text() for path in (out / plan.STATE / "slurm").glob("*_submission.sh")]
    assert {"#SBATCH --mem=102MB", "#SBATCH --mem=204MB"} <= {line for text in asked for line in text.splitlines()}


LOCAL_EXECUTOR = """
import sys
from checks import cli
from checks.sweep import engines
from checks.sweep.engines.slurm import Slurm

Slurm.patience, Slurm.pause = 5.0, 0.2
engines.start = lambda name, setup: Slurm(setup, cluster="local")
sys.exit(cli.main(sys.argv[1:]))
"""


@submitit
def test_submitits_own_executor_runs_what_slurm_would(series, undisturbed, tmp_path):
    out = tmp_path / "out"
    words = command(series, out, "--engine", "slurm", steps="step300")[3:]
    ended = subprocess.run([sys.executable, "-c", LOCAL_EXECUTOR, *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert {name: undisturbed.get(name) for name in results(out)} == results(out)
    assert len(results(out)) >= 4
