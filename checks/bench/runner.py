"""The bench from beginning to end: checkpoints, ceilings, stages in processes of their own, and the table."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from analyses.errors import InputError
from analyses.records import write_bytes
from analyses.run.measure import resolve_device
from analyses.weights.checkpoint import open_checkpoint
from checks.bench import ceilings, checkpoints, table
from checks.bench.checkpoints import SIZES, Size
from checks.bench.startup import start_up
from checks.bench.whole_runs import whole_runs
from checks.machine.environment import processor

GROWING = ("null_residual, sampled", "head_grams")
STAGES = (  # in the order of the table; named here, since `stages` is imported by the processes that run them
    "null_residual: cosines and residuals",
    "null_residual: exact spectra",
    "null_residual: sampled spectra",
    "null_residual: error of sampled ranks",
    "null_residual: matching",
    "head_grams: gram at equal head index",
    "head_grams: products of all heads",
    "head_grams: spectra of heads",
    "delta_svd: one layer",
    "weight_spectra: two layers",
    "null_residual, sampled",
    "null_residual, exact",
    "head_grams",
    "attention_stats, static",
    "forward: attention statistics, eager, 1,024 tokens",
    "forward: attention statistics, sdpa, 1,024 tokens",
    "forward: attention statistics, eager, shipped text",
    "forward: attention statistics, sdpa, shipped text",
    "forward: writes, eager, shipped text",
    "forward: residual stream, eager, shipped text",
    "forward: memory held, eager, shipped text",
    "forward: memory held, sdpa, 1,024 tokens",
)
SHALLOW = 7  # layers of the models of other widths
PASSED = 2  # layers that a forward pass goes through: each costs the same


def bench(name: str, out: Path, *, device: str = "cpu", say: Callable[[str], None]) -> str:
    """Measure at one of SIZES; writes bench.json and bench.md, returns the table.

    On a device other than the processor: every stage there, beside its ceilings, and nothing of the processor's.
    """
    size = SIZES[name]
    if device != "cpu":
        return _device_bench(name, out, resolve_device(device), say)
    with tempfile.TemporaryDirectory(prefix="fathom-bench-") as temporary:
        workspace = Path(temporary)
        checkpoints.require_space(size, workspace, available=available_memory())
        say(f"writing a checkpoint of {size.entries * 2 / 1e9:.2f} GB")
        folder = checkpoints.write(size, workspace / "model")
        rates = ceilings.measure(sorted(folder.glob("*.safetensors")), side=min(ceilings.SIDE, 4 * size.hidden))
        passed = checkpoints.write(replace(size, layers=PASSED), workspace / "passed")
        stages = [_stage(stage, passed if stage.startswith("forward: ") else folder, say) for stage in STAGES]
        say("start-up")
        stages += start_up(size, workspace)
        result = {
            "size": f"{name}: " + ", ".join(f"{key} {value}" for key, value in asdict(size).items()),
            "machine": f"{os.cpu_count()} × {processor() or platform.machine()}, torch {torch.__version__}",
            "threads": torch.get_num_threads(),
            "rates": rates,
            "stages": stages,
            "growth": _growth(size, folder, workspace, stages, say),
            "whole": whole_runs(folder, workspace, say=say),
        }
    text = table.render(result)
    write_bytes(out / "bench.json", (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(out / "bench.md", text.encode())
    return text


def _device_bench(name: str, out: Path, device: str, say: Callable[[str], None]) -> str:
    from checks.bench import device as of_device
    from checks.bench import gpu_check, on_device

    of_device.require_torch(device)
    size = SIZES[name]
    with tempfile.TemporaryDirectory(prefix="fathom-bench-") as temporary:
        checkpoints.require_space(size, Path(temporary), available=available_memory())
        say(f"ceilings of {device}")
        rates = of_device.ceilings(device)
        say(f"writing a checkpoint of {size.entries * 2 / 1e9:.2f} GB")
        folder = checkpoints.write(size, Path(temporary) / "model")
        rows = on_device.measure(open_checkpoint(str(folder)), device, say=say)
    result = {"size": name, "machine": gpu_check.machine(device), "rates": rates, "stages": rows}
    text = f"{result['machine']}; {name}\n\n{on_device.render(rows, rates)}"
    write_bytes(out / "bench.json", (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(out / "bench.md", text.encode())
    return text


def _growth(
    size: Size, folder: Path, workspace: Path, stages: list, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Over layers in the same checkpoint, over the hidden size in shallow ones of their own."""
    full = {stage["stage"]: stage for stage in stages}
    grown = []
    depths = sorted({max(2, size.layers // 4), max(2, size.layers // 2)})
    for name in GROWING:
        for layers in depths:
            grown.append(_stage(name, folder, say, layers) | {"layers": layers, "hidden": size.hidden})
        grown.append(full[name] | {"layers": size.layers, "hidden": size.hidden})
    for hidden in (size.hidden // 2, size.hidden * 2):
        shallow = replace(size.scaled(hidden), layers=min(SHALLOW, size.layers))
        other = checkpoints.write(shallow, workspace / f"hidden-{hidden}")
        grown += [_stage(name, other, say) | {"layers": shallow.layers, "hidden": hidden} for name in GROWING]
    return sorted(grown, key=lambda row: (row["stage"], row["hidden"], row["layers"]))


def _stage(name: str, folder: Path, say: Callable[[str], None], *options: int) -> dict[str, Any]:
    say(f"{name} {' '.join(map(str, options))}")
    command = [sys.executable, "-m", "checks.bench.stages", name, str(folder), *map(str, options)]
    # The C library keeps freed blocks, more or fewer from run to run; told to hand them back, it shows what is held.
    held = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)} if "memory held" in name else {}
    done = subprocess.run(command, env=os.environ | held, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"bench: {name} failed: {last}")
    return json.loads(done.stdout)


def available_memory() -> int:
    """Bytes that a process can still have."""
    info = Path("/proc/meminfo")
    if info.exists():
        line = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
