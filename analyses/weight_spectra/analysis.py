"""Power-law tails of the spectra of weight matrices: of each as it is stored, and of what a layer reads and writes.

The spectrum is that of the eigenvalues λ = σ² of WᵀW. A stored matrix has the one its coordinates give it; the read
and write Grams of a layer (`null_residual.grams`) have gains folded in and every unit scale-free, so that no exact map
of the model moves theirs. Both are fitted alike (`power_law`); no forward pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from analyses.forward.inputs import Inputs
from analyses.null_residual.grams import MADE_OF, branches, layer_grams
from analyses.numerics import spectra
from analyses.numerics.intervals import bootstrap, medians
from analyses.records import SCHEMA_VERSION, Metric
from analyses.weight_spectra.power_law import LEAST, against_itself, fits
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.schema import MATRICES

PLAUSIBLE = 0.1  # p below which a power law is ruled out, as Clauset, Shalizi and Newman have it
MIDDLE = 3.0  # of the claimed range of α, 2 to 4
NOTHING = 1e-12  # of the largest eigenvalue: below that it is rounding
Spectra = dict[str, list[np.ndarray | None]]
"""Matrix or Gram → each layer's eigenvalues; None where the layer has none."""
NO_SAMPLES = "no samples were made of the laws, since only their exponents were asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """One spectrum's law."""

    alpha: float
    interval: tuple[float, float]  # 90 %, from samples made of the law; null where none were made
    x_min: float  # relative to the largest eigenvalue
    distance: float  # between distribution functions, 0 to 1
    tail: int  # eigenvalues in it
    modes: int  # of the spectrum
    p: float  # share of samples made of the law that are as far from theirs; null where none were made


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSpectra:
    """Tails of every matrix."""

    analysis: str = "weight_spectra"
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str = "float64"  # of all arithmetic; no forward pass
    stored: dict[str, list[Tail | None]]  # family → [layer]
    folded: dict[str, list[Tail | None]]  # Gram → [layer]
    metrics: dict[str, Metric]
    identities: dict[str, Metric]
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    checkpoint: Checkpoint, *, seed: int, device: str, stored: bool = True, folded: bool = True, samples: bool = True
) -> WeightSpectra:
    """Fit every matrix of a checkpoint, a layer at a time.

    Parameters
    ----------
    seed : of the samples made of each law, and of bootstraps over layers.
    stored, folded : which to measure.
    samples : whether to make samples of each law, for how plausible it is and the interval of its own exponent.
    """
    layers = range(checkpoint.shape.layers)
    families = [f for f in MATRICES if f in checkpoint.families] if stored else []
    own: Spectra = {family: [] for family in families}
    errors: list[float] = []
    for layer in layers:
        for family in families:
            if not checkpoint.has(family, layer):
                own[family].append(None)
                continue
            weight = checkpoint.weight(family, layer, expert=0 if checkpoint.experts(family) else None, device=device)
            values = spectra.squared_singular_values(weight)
            total = float(weight.square().sum())
            errors.append(abs(float(values.sum()) - total) / total if total else 0.0)
            own[family].append(_known(values))
    grams: Spectra = {}
    for branch, names in branches(checkpoint).items() if folded else ():
        having = checkpoint.layers_with(*(family for name in names for family in MADE_OF[name]))
        for layer in layers:
            for name in names if layer not in having else ():
                grams.setdefault(name, []).append(None)
            if layer not in having:
                continue
            for name, gram in layer_grams(checkpoint, branch, layer, device=device).grams.items():
                grams.setdefault(name, []).append(_known(spectra.eigenvalues(gram)))
    stored_tails = _tails(own, lambda layer: [seed, layer], samples=samples)
    folded_tails = _tails(grams, lambda layer: [seed, layer, 1], samples=samples)
    few = f"fewer than {LEAST} eigenvalues that are not zero, or all alike"
    few += ", or a layer of another kind" if checkpoint.others else ""
    absent = {f"stored.{name}.*": few for name, tails in stored_tails.items() if None in tails}
    absent |= {f"folded.{name}.*": few for name, tails in folded_tails.items() if None in tails}
    if not samples:
        absent |= {f"{which}.*.{key}": NO_SAMPLES for which in ("stored", "folded") for key in ("*.p", "*.interval.*")}
    return WeightSpectra(
        model=checkpoint.name,
        stored=stored_tails,
        folded=folded_tails,
        metrics=_metrics("stored", stored_tails, seed) | _metrics("folded", folded_tails, seed),
        identities={
            "energy": Metric(
                value=max(errors, default=0.0),
                n={"matrices": len(errors)},
                method="|Σλ − ‖W‖²| / ‖W‖²; worst matrix",
                applies=bool(errors),
            )
        },
        absent=absent,
        notes=["Of experts, the first stands for its layer."] if checkpoint.experts("up_proj") else [],
    )


def _known(values: torch.Tensor) -> np.ndarray:
    """Of (mode,) eigenvalues in any order, those that are not rounding."""
    found = values.cpu().numpy()
    return found[found > NOTHING * found.max(initial=0)]


def _tails(spectra_of: Spectra, seed: Callable[[int], list[int]], *, samples: bool) -> dict[str, list[Tail | None]]:
    """Name → the tail of each layer, all fitted at once; `seed` of a layer is that of the samples made of its laws."""
    laws = iter(fits([values for rows in spectra_of.values() for values in rows if values is not None]))

    def tail(values: np.ndarray | None, layer: int) -> Tail | None:
        if values is None or (law := next(laws)) is None:
            return None
        p, interval = against_itself(values, law, seed=seed(layer)) if samples else (math.nan, (math.nan, math.nan))
        return Tail(
            alpha=law.alpha,
            interval=interval,
            x_min=law.x_min / float(values.max()),
            distance=law.distance,
            tail=law.tail,
            modes=len(values),
            p=p,
        )

    return {name: [tail(values, layer) for layer, values in enumerate(rows)] for name, rows in spectra_of.items()}


def _metrics(which: str, tails: dict[str, list[Tail | None]], seed: int) -> dict[str, Metric]:
    """Median α, its distance from the middle of the claimed range, and how many laws are plausible."""
    names = (f"{which}_alpha", f"{which}_alpha_off", f"{which}_plausible")
    known = {name: rows for name, rows in tails.items() if None not in rows}
    if not known:
        reason = "no spectrum has enough eigenvalues" if tails else "these spectra were not asked for"
        return dict.fromkeys(names, Metric(value=None, reason=reason, applies=bool(tails)))
    alphas = np.array([[tail.alpha for tail in rows] for rows in known.values()])  # (matrix, layer)
    p = np.array([[tail.p for tail in rows] for rows in known.values()])
    made, layers = np.isfinite(p).all(), alphas.shape[1]
    n = {"layers": layers, "matrices": alphas.size}
    value = float(np.median(alphas))
    interval = bootstrap(lambda drawn: medians(alphas.T, drawn), layers, seed=seed, within=(1, np.inf))
    method = "median over matrices and layers of the exponent of the density of λ = σ²; bootstrap over layers"
    ends = interval and tuple(end - MIDDLE for end in interval)
    return {
        names[0]: Metric(value=value, interval=interval, n=n, method=method),
        names[1]: Metric(
            value=abs(value - MIDDLE),
            interval=ends and (0.0 if ends[0] <= 0 <= ends[1] else min(map(abs, ends)), max(map(abs, ends))),
            n=n,
            method=f"|α − {MIDDLE:g}| of the {method}",
        ),
        names[2]: Metric(
            value=float(np.mean(p >= PLAUSIBLE)) if made else None,
            n=n,
            reason=None if made else NO_SAMPLES,
            method=f"share of spectra whose law is not ruled out: p of at least {PLAUSIBLE} among samples made of it",
        ),
    }


def analyse(inputs: Inputs) -> tuple[WeightSpectra, dict[str, torch.Tensor]]:
    """`measure` as the suite calls it; no arrays. A twin is spared what none of its claims reads."""
    plausible = {which: inputs.asks(f"{which}_plausible") for which in ("stored", "folded")}
    asked = {which: own or inputs.asks(f"{which}_alpha", f"{which}_alpha_off") for which, own in plausible.items()}
    samples = any(plausible.values())
    return measure(inputs.checkpoint, seed=inputs.seed, device=inputs.device, **asked, samples=samples), {}
