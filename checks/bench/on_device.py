"""Every stage of the analyses on a device, against its ceilings; with `cpu` as the device it is tested."""

import time
from collections.abc import Callable
from typing import Any

import torch

from analyses import attention_stats, head_grams, weight_spectra
from analyses.attention_stats.attention_probe import AttentionProbe
from analyses.delta_svd.delta_probe import DeltaProbe
from analyses.delta_svd.writes import layer_write
from analyses.forward.calibration import load_calibration
from analyses.forward.instrumented import walk
from analyses.forward.loading import load
from analyses.null_residual.shards import PARTS, measure_shard
from analyses.run.costs import costs
from analyses.weights.checkpoint import Checkpoint
from checks.bench.device import synchronise
from checks.bench.table import markdown

TOKENS = 1024
HEADINGS = ("stage on the device", "seconds", "10¹² operations/s", "of float32 products", "peak GB there")

Work = Callable[[], object]


def stages(checkpoint: Checkpoint, device: str) -> dict[str, tuple[Work, float | None]]:
    """Stage → (its work, its operations where they are counted)."""
    layers = range(checkpoint.shape.layers)
    options = dict(seed=0, device=device)
    planned = costs(checkpoint, load_calibration(), dtype="float32", spectra="sampled")

    def part(name: str, spectra: str) -> Work:
        return lambda: measure_shard(checkpoint, layers, **options, spectra=spectra, parts=[name])

    found: dict[str, tuple[Work, float | None]] = {
        f"null_residual: {name}, {spectra}": (part(name, spectra), None)
        for name, spectra in (("entries", "none"), *((name, "sampled") for name in PARTS))
    }
    found["null_residual, all of it, sampled"] = (
        lambda: measure_shard(checkpoint, layers, **options, spectra="sampled"),
        planned["null_residual"].operations,
    )
    found["head_grams"] = (lambda: head_grams.measure(checkpoint, **options), planned["head_grams"].operations)
    found["attention_stats, static"] = (
        lambda: attention_stats.measure(checkpoint, None, None, **options),
        planned["attention_stats"].operations,
    )
    found["weight_spectra"] = (lambda: weight_spectra.measure(checkpoint, **options), None)
    found["delta_svd: one layer"] = (_write(checkpoint.shape.hidden, device), None)
    found[f"forward pass with probes, {TOKENS} tokens"] = (_forward(checkpoint, device), None)
    return found


def measure(checkpoint: Checkpoint, device: str, *, say: Callable[[str], None] = lambda line: None) -> list[dict]:
    """A row a stage: seconds of its second run, operations a second, and the largest memory held on the device."""
    rows = []
    for name, (work, operations) in stages(checkpoint, device).items():
        say(f"{name} on {device}")
        work()  # libraries are loaded and buffers made
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
        rows.append({"stage": name, "seconds": seconds, "operations": operations, "peak_bytes": peak})
    return rows


def render(rows: list[dict[str, Any]], rates: dict[str, float]) -> str:
    """The table of the stages, and the device's ceilings."""
    cells = []
    for row in rows:
        rate = row["operations"] / row["seconds"] if row["operations"] else None
        cells.append(
            (
                row["stage"],
                f"{row['seconds']:.3f}",
                "" if rate is None else f"{rate / 1e12:.3g}",
                "" if rate is None else f"{rate / rates['float32_products']:.0%}",
                "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f}",
            )
        )
    ceilings = [(name.replace("_", " "), f"{rate / 1e9:.1f}") for name, rate in rates.items()]
    return f"{markdown(('ceiling of the device', '10⁹/s'), ceilings)}\n\n{markdown(HEADINGS, cells)}\n"


def _write(hidden: int, device: str) -> Work:
    generator = torch.Generator().manual_seed(0)
    h, delta = (torch.randn(2 * hidden, hidden, generator=generator).double().to(device) for _ in range(2))
    return lambda: layer_write(h, delta)


def _forward(checkpoint: Checkpoint, device: str) -> Work:
    """Through all layers of the checkpoint by the library's own class, which is loaded by the first run."""
    base: list[Any] = []
    tokens = min(TOKENS, 4 * checkpoint.shape.hidden)
    ids = torch.randint(checkpoint.config["vocab_size"], (1, tokens), generator=torch.Generator().manual_seed(0))

    def run() -> None:
        if not base:
            options = dict(dtype="float32", device=device, attention="eager", trust_remote_code=False)
            base.append(load(checkpoint, **options))
        probes = [AttentionProbe(), DeltaProbe(layer_norm=False)]
        walk(base[0], checkpoint, ids, torch.ones_like(ids, dtype=torch.bool), probes, attention="eager")
        for probe in probes:
            if probe.failure is not None:
                raise probe.failure

    return run
