"""Whole runs beside scripts of the published arithmetic: processor time and peak memory, start-up included."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.errors import InputError

FATHOM = (sys.executable, "-m", "checks.cli", "measure")
SCRIPT = (sys.executable, "-m", "checks.bench.published")
SPENT = (sys.executable, "-m", "checks.bench.spent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A run, and how much of its script's processor time and memory it may take."""

    run: str
    analysis: str
    options: tuple[str, ...] = ()
    time: float
    memory: float | None = None


AIMS = (
    Aim(run="null_residual, by default", analysis="null_residual", time=2, memory=0.25),
    Aim(
        run="null_residual --spectra none --no-matching",
        analysis="null_residual",
        options=("--spectra", "none", "--no-matching"),
        time=0.5,
    ),
    Aim(run="head_grams", analysis="head_grams", time=1, memory=0.25),
)


def whole_runs(folder: Path, workspace: Path, *, device: str = "cpu", say: Callable[[str], None]) -> list[dict]:
    """Rows of the table: each run of AIMS on this checkpoint, beside its script."""
    scripts, rows = {}, []
    for i, aim in enumerate(AIMS):
        if aim.analysis not in scripts:
            say(f"published script of {aim.analysis}")
            scripts[aim.analysis] = _spent((*SCRIPT, aim.analysis, str(folder), str(workspace / f"{i}.json")))
        say(f"whole run: {aim.run}")
        out = ("--out", str(workspace / f"run-{i}"), "--device", device, "--controls", "none", "--quiet")
        spent = _spent((*FATHOM, str(folder), "--only", aim.analysis, *aim.options, *out))
        script = scripts[aim.analysis]
        rows.append(
            {"run": aim.run, "aim_time": aim.time, "aim_memory": aim.memory}
            | spent
            | {f"script_{name}": value for name, value in script.items()}
        )
    return rows


def _spent(command: Sequence[str]) -> dict[str, float]:
    """Seconds of all processors and of the clock, and MB, that a command and its children take."""
    ran = subprocess.run((*SPENT, *command), stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(ran.stdout)
    if "failed" in found:
        raise InputError(f"bench: {' '.join(command[2:5])} failed: {found['failed']}")
    return found


HEADINGS = ("run", "CPU s", "script's", "×", "aim", "peak MB", "script's", "×", "aim")


def cells(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Of the table of whole runs."""
    return [
        (
            row["run"],
            *(f"{row[name]:.1f}" for name in ("processor", "script_processor")),
            f"{row['processor'] / row['script_processor']:.2f}",
            f"{row['aim_time']:.3g}",
            *(f"{row[name]:.0f}" for name in ("peak_mb", "script_peak_mb")),
            f"{row['peak_mb'] / row['script_peak_mb']:.2f}",
            "" if row["aim_memory"] is None else f"{row['aim_memory']:.3g}",
        )
        for row in rows
    ]
