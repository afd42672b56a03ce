"""An honest page verifies elsewhere: on other threads and with other instructions no number has drifted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analyses import registry
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.run.measure import resolve
from analyses.run.suite import records_of
from analyses.weights.checkpoint import open_checkpoint
from checks.machine.threads import COUNTS, threads
from checks.reference import RECORDED
from checks.verify import modes
from checks.verify.differences import compare
from checks.verify.results import received
from checks.verify.tolerances import measure_tolerances, read_tolerances, tolerance_of, widest
from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parents[2]
MODELS = {"qwen3": 3, "gpt2": 2, "olmo2": 2}  # name in TINY → layers
PROMPTS = 8  # of those that ship: enough for every statistic to have a value
ASKED = ("null_residual", "attention_stats", "delta_svd")  # what draws nothing at random, and takes least
OLDER = {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OPENBLAS_CORETYPE": "Nehalem", "ATEN_CPU_CAPABILITY": "default"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("models")
    return {name: tiny_checkpoint(out / name, name, layers=layers) for name, layers in MODELS.items()}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """A text of the prompts' ids, one token a byte."""
    path = tmp_path_factory.mktemp("text") / "prompts.ids.jsonl"
    path.write_text("".join(f"{json.dumps(list(each.encode()))}\n" for each in load_calibration().texts[:PROMPTS]))
    return path


@pytest.fixture(scope="module")
def older(folders, text, tmp_path_factory) -> Path:
    """All models measured by a process that may use the instructions of an old processor alone."""
    out = tmp_path_factory.mktemp("older")
    given = os.environ | OLDER | dict.fromkeys(COUNTS, "1") | {"PYTHONPATH": str(ROOT)}
    words = [*map(str, folders.values()), "--only", ",".join(ASKED), "--out", str(out), "--device", "cpu", "--quiet"]
    words += ["--calibration", str(text)]
    subprocess.run([sys.executable, "-m", "checks.cli", "measure", *words], env=given, check=True, timeout=600)
    return out


def drifting(old: dict, new: dict, measured: list) -> list[str]:
    found = []
    for name in ASKED:
        allowed = widest([tolerance_of(tree, name, new[name], same_model=own) for tree, own in measured])
        leaves = compare(old[name], new[name], allowed, modes.compared_here(name))
        leaves += modes.leaves(name, old[name], new[name], allowed)
        found += [f"{name} {leaf.path}: {leaf.moved} of {leaf.tolerance}" for leaf in leaves if leaf.drifts]
    return found


def measured(checkpoint, settings: Settings, count: int) -> dict[str, dict]:
    """Records by so many threads, with the part of a key that says how precise they are."""
    with threads(count):
        found = records_of(checkpoint, load_calibration(settings.calibration), settings, ASKED)
    dtypes = {name: settings.dtype if registry.reads_text(name) else "float64" for name in ASKED}
    return {name: found[name] | {"key": {"dtype": dtypes[name]}} for name in ASKED}


@pytest.mark.parametrize("name", MODELS)
def test_no_number_drifts_on_other_threads_or_with_other_instructions(name, folders, text, older):
    checkpoint = open_checkpoint(str(folders[name]))
    for attention in ("eager", "sdpa"):
        settings = resolve(Settings(device="cpu", only=ASKED, attention=attention, calibration=text), checkpoint)
        here = measured(checkpoint, settings, 1)
        moved = measure_tolerances(str(folders[name]), settings, dtypes=(settings.dtype,))
        allowed = [(read_tolerances(RECORDED), False), (moved, True)]
        for count in (2, 4):
            assert not drifting(measured(checkpoint, settings, count), here, allowed)
        if attention == "eager":
            with received(older / name) as result:
                assert result.manifest["machine"]["instructions"] == "DEFAULT"
                assert not drifting(dict(result.found), here, allowed)
