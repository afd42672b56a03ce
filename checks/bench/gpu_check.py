"""Does a device give the processor's numbers, and how fast? One script for a machine that has just been started.

Every analysis runs on the processor and on the device, of the reference model and of random models with true
dimensions, and each number that a claim reads is compared, within tolerances stated here. Then every stage is timed
beside the device's ceilings. What it finds goes into gpu-check.json and gpu-check.md.

    python -m checks.bench.gpu_check --device cuda --out build
"""

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from analyses import registry
from analyses.errors import InputError
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.records import write_bytes
from analyses.run.measure import resolve_device
from analyses.run.suite import records_of
from analyses.weights.checkpoint import open_checkpoint
from checks.bench import checkpoints, device, on_device
from checks.bench.checkpoints import SIZES, Size
from checks.bench.table import markdown
from checks.machine.environment import processor
from checks.reference import REFERENCE

WEIGHTS = ("null_residual", "head_grams", "weight_spectra")  # what random models, which have no tokenizer, are asked
# Absolute, of numbers of order one. Weights: float64 sums in another order, which matchings among near ties and float32
# products of wide models magnify; the forward pass is float32, whose errors of 1e-6 a layer grow through the layers.
TOLERANCE = {"weights": 1e-4, "forward": 5e-3}
AGREED = {"tiny": 2, "0.6b": 3, "4b": 2}  # layers of the random models that are compared
TIMED = {"tiny": 3, "0.6b": 28, "4b": 6}  # and of the one that is timed: each layer costs the same
COLUMNS = ("model", "analysis", "numbers", "largest difference", "where", "tolerance", "verdict")


def compare(cpu: Mapping[str, Any], other: Mapping[str, Any], tolerance: float) -> dict[str, Any]:
    """Numbers of two records' metrics: how many, the largest difference and where, and whether they agree.

    A number that one record has and the other has not is infinitely different.
    """
    one, two = dict(_numbers(cpu["metrics"])), dict(_numbers(other["metrics"]))
    apart = {name: abs(one[name] - two[name]) if name in one and name in two else math.inf for name in one | two}
    where = max(apart, key=apart.__getitem__, default="")
    largest = apart.get(where, 0.0)
    return {"numbers": len(apart), "largest": largest, "where": where, "agrees": largest <= tolerance}


def _numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Values of metrics and of their members; intervals rest on the same numbers."""
    for name, metric in metrics.items():
        for path, part in ((name, metric), *((f"{name}.{m}", p) for m, p in metric.get("members", {}).items())):
            if part["value"] is not None:
                yield path, part["value"]


def agreement(folder: Path, names: tuple[str, ...], on: str, label: str) -> list[dict[str, Any]]:
    """A row an analysis of one model: the device's metrics against the processor's."""
    checkpoint, text = open_checkpoint(str(folder)), load_calibration(None, tokens=0)
    found = [records_of(checkpoint, text, Settings(device=where, only=names), names) for where in ("cpu", on)]
    rows = []
    for name in names:
        kind = "forward" if registry.FORWARD & {name, *registry.reads(name)} else "weights"
        rows.append(
            {"model": label, "analysis": name, "tolerance": TOLERANCE[kind]}
            | compare(*(records[name] for records in found), TOLERANCE[kind])
        )
    return rows


def check(
    on: str,
    out: Path,
    *,
    sizes: tuple[str, ...] = ("0.6b", "4b"),
    reference: Path = REFERENCE,
    ceilings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> bool:
    """Everything, into `out`; whether all numbers agree. `ceilings` : other options of `device.ceilings`."""
    on, start = resolve_device(on), time.perf_counter()
    device.require_torch(on)
    say(f"ceilings of {on}")
    result: dict[str, Any] = {
        "machine": machine(on),
        "rates": device.ceilings(on, **(ceilings or {})),
        "agreement": agreement(reference, registry.NAMES, on, "reference"),
    }
    with tempfile.TemporaryDirectory(prefix="fathom-device-") as temporary:
        for name in sizes:
            say(f"agreement, random weights of {name}")
            folder = checkpoints.write(_shallow(SIZES[name], AGREED[name]), Path(temporary) / name)
            result["agreement"] += agreement(folder, WEIGHTS, on, f"random, {name}, {AGREED[name]} layers")
        name = sizes[-1]
        folder = checkpoints.write(_shallow(SIZES[name], TIMED[name]), Path(temporary) / "timed")
        result["timed"] = f"{name}, {TIMED[name]} of {SIZES[name].layers} layers"
        result["stages"] = on_device.measure(open_checkpoint(str(folder)), on, say=say)
    result["seconds"] = time.perf_counter() - start
    result["agrees"] = all(row["agrees"] for row in result["agreement"])
    plain = json.loads(json.dumps(result), parse_constant=str)  # a number that is missing on one side is infinitely off
    write_bytes(out / "gpu-check.json", (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode())
    write_bytes(out / "gpu-check.md", render(result).encode())
    return result["agrees"]


def machine(on: str) -> str:
    """The device by its name, the processor and torch."""
    name = torch.cuda.get_device_name() if on == "cuda" else on
    return f"{name}; {processor() or platform.machine()}; torch {torch.__version__}"


def render(result: Mapping[str, Any]) -> str:
    """The whole page, in Markdown."""
    rows = [
        (
            row["model"],
            row["analysis"],
            str(row["numbers"]),
            f"{row['largest']:.2g}",
            row["where"],
            f"{row['tolerance']:.0e}",
            "agrees" if row["agrees"] else "DIFFERS",
        )
        for row in result["agreement"]
    ]
    timed = f"Stages of {result['timed']}, second run of each, reading included:"
    stages = on_device.render(result["stages"], result["rates"])
    return f"{result['machine']}\n\n{markdown(COLUMNS, rows)}\n\n{timed}\n\n{stages}\n{result['seconds']:.0f} s\n"


def _shallow(size: Size, layers: int) -> Size:
    return replace(size, layers=min(layers, size.layers))


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m checks.bench.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "mps", "cpu"))
    parser.add_argument("--out", type=Path, default=Path("build"))
    sizes = "random models that are compared, the last of them timed (default: 0.6b,4b)"
    parser.add_argument("--sizes", default="0.6b,4b", help=sizes)
    given = parser.parse_args(words)
    try:
        if unknown := [name for name in given.sizes.split(",") if name not in SIZES]:
            raise InputError(f"--sizes {unknown[0]}: expected some of {', '.join(SIZES)}")
        agrees = check(given.device, given.out, sizes=tuple(given.sizes.split(",")), say=print)
    except InputError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    print((given.out / "gpu-check.md").read_text(encoding="utf-8"))
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
