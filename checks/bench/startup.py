"""Seconds until the program answers: its help, and a page made from records that are there."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analyses.errors import InputError
from checks.bench import ceilings, checkpoints
from checks.bench.checkpoints import SIZES, Size

FATHOM = (sys.executable, "-m", "checks.cli")
FLOOR = "starting Python"
REPEATS = 5
MEASURED = ("--only", "null_residual,head_grams", "--spectra", "none", "--controls", "none")


def start_up(size: Size, out: Path) -> list[dict[str, Any]]:
    """Two rows of the table; the page is that of a model with so many layers and heads, but narrow."""
    narrow = replace(SIZES["tiny"], layers=size.layers, heads=size.heads, kv_heads=size.kv_heads)
    folder = checkpoints.write(narrow, out / "narrow")
    _fathom("measure", str(folder), *MEASURED, "--out", str(out / "records"), "--quiet")
    (records,) = (out / "records").iterdir()
    python = _seconds([sys.executable, "-c", "pass"])
    calls = {"start-up: fathom --help": ["--help"], "start-up: fathom report, from records": ["report", str(records)]}
    return [_row(name, _seconds([*FATHOM, *given]), python) for name, given in calls.items()]


def _row(name: str, seconds: float, python: float) -> dict[str, Any]:
    nothing = {"bare_seconds": python, "peak_mb": None, "operations": {}, "facts": {}}
    return {"stage": name, "seconds": seconds, "ratios": [seconds / python], "floor": FLOOR} | nothing


def _seconds(command: Sequence[str]) -> float:
    return ceilings.best(lambda: subprocess.run(command, capture_output=True, check=True), REPEATS)


def _fathom(*given: str) -> None:
    done = subprocess.run([*FATHOM, *given], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"bench: fathom {given[0]} failed: {done.stderr.strip()}")
