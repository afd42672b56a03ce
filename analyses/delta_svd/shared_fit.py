"""One linear map for a run of layers, tested on prompts that it has not seen; and what it leaves of each write.

From the sums of `shared_map`. A map for a run minimises the squared error of all its layers, each relative to the
energy of its own write. R² of a layer is the energy that a map explains of it on the folds left out, relative to its
energy there. What the map of its phase leaves of a layer's write, over all folds, has a spectrum of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analyses.delta_svd.shared_map import Maps, solve
from analyses.numerics.spectra import EPS

RUNS = 99  # other runs of layers compared at most: p = 0.01 at the least
LEAST_OWN = 0.05  # mean held-out R² of the layers' own maps, below which there is nothing to share


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMap:
    """One map for a run of layers, tested on unseen prompts."""

    own: np.ndarray  # (layer,) R² of each layer's own map
    shared: np.ndarray  # (layer,) R² of the run's map

    @property
    def ratio(self) -> float | None:
        """Mean R² of the shared map over mean R² of the layers' own; None where these explain nothing."""
        return float(self.shared.mean() / self.own.mean()) if self.own.mean() >= LEAST_OWN else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remainder:
    """What the shared map leaves of one layer's write, on unseen prompts."""

    top1: float | None  # energy share of its first direction; None where nothing is left
    top_singular: float  # σ₁, the published γ_ℓ of v_ℓ


def shared_maps(maps: Maps, runs: Sequence[range]) -> list[SharedMap]:
    """Held-out R² of one map for each run of layers, and of the layers' own maps."""
    layers = len(maps.energy)
    own, total = torch.zeros(layers, dtype=torch.float64), 1 - maps.kept  # what no map can reach counts as unexplained
    shared = [torch.zeros(len(run), dtype=torch.float64) for run in runs]
    for split in maps.splits():
        total = total + split.test_energy
        each = solve(split.squares, split.products)
        own += (each * (2 * split.test_products - split.test_squares @ each)).sum((1, 2))
        for found, run in zip(shared, runs, strict=True):
            part = slice(run.start, run.stop)
            one = solve(split.squares[part].sum(0), split.products[part].sum(0))  # (k, r)
            both = split.test_products[part].flatten(1) @ one.flatten()
            found += 2 * both - split.test_squares[part].flatten(1) @ (one @ one.mT).flatten()
    return [
        SharedMap(own=(own[run.start : run.stop] / total[run.start : run.stop]).numpy(), shared=(found / part).numpy())
        for run, found, part in zip(runs, shared, (total[r.start : r.stop] for r in runs), strict=True)
    ]


def remainders(maps: Maps, phases: Sequence[range]) -> list[Remainder]:
    """Of every layer, what the map of its own phase leaves, over all folds."""
    layers, r = len(maps.energy), maps.write.shape[2]
    left = torch.zeros(layers, r, r, dtype=torch.float64)
    for split in maps.splits(whole=True):
        left += split.test_writes
        for phase in phases:
            part = slice(phase.start, phase.stop)
            one = solve(split.squares[part].sum(0), split.products[part].sum(0))  # (k, r)
            left[part] -= one.mT @ (2 * split.test_products[part] - split.test_squares[part] @ one)
    left = (left + left.mT) / 2  # the cross products' two halves were taken as one, doubled
    found = []
    for layer in range(layers):
        energy = float(maps.energy[layer])
        first = max(float(torch.linalg.eigvalsh(left[layer])[-1]), 0.0)
        total = float(left[layer].diagonal().sum()) + 1 - float(maps.kept[layer])
        silent = energy == 0 or total <= EPS * r
        found.append(Remainder(top1=None if silent else first / total, top_singular=math.sqrt(first * energy)))
    return found


def other_runs(layers: int, run: range, seed: int) -> list[range]:
    """Contiguous runs of as many layers elsewhere: all, or RUNS of them drawn."""
    others = [range(a, a + len(run)) for a in range(layers - len(run) + 1) if a != run.start]
    if len(others) <= RUNS:
        return others
    drawn = np.random.default_rng(seed).choice(len(others), RUNS, replace=False)
    return [others[i] for i in sorted(drawn.tolist())]
