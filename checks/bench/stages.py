"""Each stage of an analysis against what must be done for it, in a process of its own.

A stage first does its work once, and the peak of resident memory is read before anything else runs; then its work and
the bare library calls that it cannot do without take turns, so that a busy machine slows both.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from statistics import median

import numpy as np
import torch
from safetensors import safe_open

from analyses import attention_stats, head_grams, null_residual, weight_spectra
from analyses.delta_svd import writes
from analyses.head_grams import reader
from analyses.head_grams.all_pairs import all_products, operations, paired_products
from analyses.head_grams.one_head import head_metrics
from analyses.null_residual import grams, pairs
from analyses.null_residual.family import follow
from analyses.null_residual.matching import FLOAT32_HIDDEN, NEURONS, matched_cosines
from analyses.numerics import lanczos
from analyses.weights.architectures import GAINS
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.bench import ceilings
from checks.bench.stage import Stage, peak

TOKENS = 2  # per hidden dimension, in the writes of delta_svd
LAYERS = 3  # of the stages whose cost is the same for every layer
SPECTRAL = ("k_proj", "up_proj")  # the most square and the most oblong: of all layers, since draws are made once


def run(name: str, folder: Path, layers: int | None = None) -> dict[str, object]:
    """Seconds of the work and of the bare calls (medians over turns), and the peak above the stage's baseline."""
    baseline = peak()
    checkpoint = open_checkpoint(str(folder))
    stage = STAGES[name](_first(checkpoint, layers) if layers else checkpoint)
    baseline = baseline if stage.baseline is None else stage.baseline
    work, bare = [], []
    for turn in range(stage.turns):
        work.append(_seconds(stage.work))
        if turn == 0:
            memory = max(0.0, peak() - baseline)  # the system counts to within some pages a thread
        if stage.bare:
            bare.append(_seconds(stage.bare))
    return {
        "stage": name,
        "seconds": median(work),
        "bare_seconds": median(bare) if bare else None,
        "ratios": [w / b for w, b in zip(work, bare, strict=True)] if bare else [],
        "peak_mb": memory,
        "floor": stage.floor,
        "operations": stage.operations,
        "facts": stage.facts,
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- what must be done --------------------------------------------------------------------------


def _matrices(checkpoint: Checkpoint, layers: int) -> Iterator[torch.Tensor]:
    for family in checkpoint.families:
        if family not in GAINS:
            yield from (checkpoint.weight(family, layer) for layer in range(layers))


def _read_and_upcast(checkpoint: Checkpoint) -> None:
    for name, path in checkpoint.files.items():
        with safe_open(path, framework="pt") as file:
            file.get_tensor(name).double()


def _first(checkpoint: Checkpoint, layers: int = LAYERS) -> Checkpoint:
    return checkpoint.restricted(layers=range(min(layers, checkpoint.shape.layers)))


def _follow(checkpoint: Checkpoint, spectra: str) -> None:
    for family in checkpoint.families:
        follow((checkpoint.stored(family, i) for i in range(checkpoint.shape.layers)), seed=(0,), spectra=spectra)


# --- the stages ---------------------------------------------------------------------------------


def likeness(checkpoint: Checkpoint) -> Stage:
    return Stage(
        work=lambda: _follow(checkpoint, "none"),
        bare=lambda: _read_and_upcast(checkpoint),
        floor="reading and upcasting every byte once",
    )


def exact_spectra(checkpoint: Checkpoint) -> Stage:
    view = checkpoint.restricted(families=SPECTRAL)

    def bare() -> None:
        """Gram matrices of three matrices a pair and of one more a family, four eigenvalue calls, one product."""
        for family in view.families:
            for i in range(view.shape.layers):
                weight = view.weight(family, i)
                for _ in range(3 if i else 1):
                    symmetric = ceilings.gram(weight)
                    ceilings.eigenvalues(symmetric)
                if i:
                    ceilings.eigenvalues(symmetric @ symmetric.T)

    work = lambda: _follow(view, "exact")  # noqa: E731
    return Stage(work=work, bare=bare, floor="the Gram products and eigenvalue calls", turns=2)


def sampled_spectra(checkpoint: Checkpoint) -> Stage:
    view = checkpoint.restricted(families=SPECTRAL)
    return Stage(
        work=lambda: _follow(view, "sampled"),
        bare=lambda: _follow(view, "exact"),
        floor="the exact spectra, as measured here",
        turns=2,
    )


def matching(checkpoint: Checkpoint) -> Stage:
    view = _first(checkpoint, 2)
    shape = view.shape
    neurons = 3 * 2 * 2 * min(shape.feed_forward, NEURONS) * shape.feed_forward * shape.hidden
    rows = (shape.heads * shape.head_dim) ** 2 + (shape.kv_heads * shape.head_dim) ** 2
    rate = "float32_products" if shape.hidden >= FLOAT32_HIDDEN else "float64_products"
    return Stage(
        work=lambda: list(matched_cosines(view, seed=0, device="cpu")),
        floor="the products of all neurons and heads of a pair of layers, twice",
        operations={rate: neurons + 2 * 2 * 2 * rows * shape.hidden},
    )


def head_gram(checkpoint: Checkpoint) -> Stage:
    shape = checkpoint.shape
    full = shape.layers**2 * shape.head_dim**2 * 2 * shape.hidden * (shape.heads + shape.kv_heads)
    return Stage(
        work=lambda: paired_products(reader(checkpoint, device="cpu"), shape.layers),
        floor="the products of stacked layers, in full",
        operations={"float32_products": full},
    )


def head_products(checkpoint: Checkpoint) -> Stage:
    shape = checkpoint.shape
    return Stage(
        work=lambda: all_products(reader(checkpoint, device="cpu"), shape.layers, seed=0),
        floor="its operations",
        operations={"float32_products": operations(shape.layers, shape.heads, shape.head_dim, shape.hidden)},
    )


def head_spectra(checkpoint: Checkpoint) -> Stage:
    view = _first(checkpoint)
    heads = [reader(view, device="cpu")(layer) for layer in range(view.shape.layers)]

    def bare() -> None:
        """What the three spectra of a head cannot do without: two thin QR factors, an SVD, eigenvalues; batched."""
        for layer in heads:
            keys = layer.repeated_keys()
            torch.linalg.qr(layer.keys.mT)
            torch.linalg.qr(layer.queries.mT)
            small = layer.queries @ keys.mT
            np.linalg.svd(small.numpy())
            np.linalg.svd(small.numpy())  # the published directions
            r = torch.linalg.qr(torch.cat([layer.queries, keys], 1).mT, mode="r").R
            np.linalg.eigvalsh((r + r.mT).numpy())

    return Stage(
        work=lambda: [head_metrics(layer, 8) for layer in heads],
        bare=bare,
        floor="the batched factorisations and eigenvalue calls",
    )


def delta_svd(checkpoint: Checkpoint) -> Stage:
    hidden = checkpoint.shape.hidden
    generator = torch.Generator().manual_seed(0)
    h, delta = torch.randn(2, TOKENS * hidden, hidden, generator=generator, dtype=torch.float64)

    def bare() -> None:
        for i in range(4):  # as it stands, centred, with unit rows, without outliers; the first two with directions
            symmetric = ceilings.gram(delta)
            torch.linalg.eigh(torch.from_numpy(symmetric)) if i < 2 else ceilings.eigenvalues(symmetric)

    work = lambda: writes.layer_write(h, delta)  # noqa: E731
    return Stage(work=work, bare=bare, floor="two decompositions with vectors and two without, of the smaller side")


def power_laws(checkpoint: Checkpoint) -> Stage:
    """Tails of two layers' stored and folded spectra, against the spectra themselves."""
    view = _first(checkpoint, 2)

    def bare() -> None:
        for weight in _matrices(view, 2):
            ceilings.eigenvalues(ceilings.gram(weight))
        for branch in grams.branches(view):
            for layer in range(2):
                for gram in grams.layer_grams(view, branch, layer, device="cpu").grams.values():
                    ceilings.eigenvalues(gram)

    work = lambda: weight_spectra.measure(view, seed=0, device="cpu")  # noqa: E731
    return Stage(work=work, bare=bare, floor="the spectra of the matrices and of the Grams", turns=2)


def whole(analysis: Callable[[Checkpoint], object]) -> Callable[[Checkpoint], Stage]:
    return lambda checkpoint: Stage(work=lambda: analysis(checkpoint), turns=1)


def passes(kind: str, *of: str) -> Callable[[Checkpoint], Stage]:
    """A stage of the forward pass; only its own process loads the library that it needs."""
    return lambda checkpoint: getattr(import_module("checks.bench.passes"), kind)(checkpoint, *of)


def accuracy(checkpoint: Checkpoint) -> Stage:
    """The largest error of a sampled effective rank over the first layer's matrices, and how many were sampled."""
    errors = []
    for weight in _matrices(checkpoint, 1):
        unit = pairs.Side(weight)
        exact = float(torch.special.entr(unit.sigma.square() / unit.sigma.square().sum()).sum())
        found = lanczos.sampled_entropy(
            lanczos.dense(weight.float()),
            min(weight.shape),
            unit.norm**2,
            torch.Generator().manual_seed(0),
            weight.device,
        )
        errors += [abs(math.expm1(found.entropy - exact))] if found else []
    facts = {"sampled": len(errors), "largest relative error": max(errors, default=0.0)}
    return Stage(work=lambda: None, facts=facts, turns=1)


STAGES: dict[str, Callable[[Checkpoint], Stage]] = {
    "null_residual: cosines and residuals": likeness,
    "null_residual: exact spectra": exact_spectra,
    "null_residual: sampled spectra": sampled_spectra,
    "null_residual: error of sampled ranks": accuracy,
    "null_residual: matching": matching,
    "head_grams: gram at equal head index": head_gram,
    "head_grams: products of all heads": head_products,
    "head_grams: spectra of heads": head_spectra,
    "delta_svd: one layer": delta_svd,
    "weight_spectra: two layers": power_laws,
    "null_residual, sampled": whole(lambda c: null_residual.measure(c, seed=0, device="cpu", spectra="sampled")),
    "null_residual, exact": whole(lambda c: null_residual.measure(c, seed=0, device="cpu")),
    "head_grams": whole(lambda c: head_grams.measure(c, seed=0, device="cpu")),
    "forward: attention statistics, eager, 1,024 tokens": passes("attention", "eager", "one"),
    "forward: attention statistics, sdpa, 1,024 tokens": passes("attention", "sdpa", "one"),
    "forward: attention statistics, eager, shipped text": passes("attention", "eager", "shipped"),
    "forward: attention statistics, sdpa, shipped text": passes("attention", "sdpa", "shipped"),
    "forward: writes, eager, shipped text": passes("writes", "eager", "shipped"),
    "forward: residual stream, eager, shipped text": passes("stream", "eager", "shipped"),
    "forward: memory held, eager, shipped text": passes("memory", "eager", "shipped"),
    "forward: memory held, sdpa, 1,024 tokens": passes("memory", "sdpa", "one"),
    "attention_stats, static": whole(lambda c: attention_stats.measure(c, None, None, seed=0, device="cpu")),
}

if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))))
