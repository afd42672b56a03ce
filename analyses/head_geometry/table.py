"""Correlations of several descriptors with one outcome, and the chance level of the best of them.

Choosing the best of seven inflates |r|, and depth drift inflates it more. The chance level therefore repeats the
choice: the largest |r| of any descriptor, with whole layers of the descriptors rearranged against those of the outcome.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analyses.head_geometry.correlation import (
    PARTS,
    by_layer,
    cluster_intervals,
    p_value,
    pearson,
    permutation_null,
    pooled_spearman,
    shift_null,
    spearman,
    varies,
)
from analyses.head_geometry.regression import Regression, regress
from analyses.numerics.pvalues import holm

REGRESSIONS = {
    "published": ("op", "spec_ent", "rank_eff", "anisotropy"),  # collinear: anisotropy ≡ d/rank_eff
    "corrected": ("op", "spec_ent", "rank_eff"),
}
CORRECTED = "corrected"
LEAST_LAYERS = 3  # below it there are neither thirds nor rearrangements
LEAST_HEADS = 10  # over all layers: twice as many as a regression on four predictors has coefficients


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One descriptor against one outcome. r is Pearson's unless called Spearman's; None where a part has no spread."""

    r: Mapping[str, float | None]  # pooled, within, between
    r_interval: Mapping[str, tuple[float, float] | None]  # the same, 90 %, cluster bootstrap over layers
    spearman: Mapping[str, float | None]  # pooled, within (ranks inside each layer), between (ranks of layer means)
    thirds: list[float | None]  # pooled r in the first, middle and last third of the depth
    thirds_spearman: list[float | None]
    by_layer: list[float | None]  # each used layer's own r, in the order of the table's `layers`
    descriptor_between: float  # η² of the descriptor: share of its sum of squares that lies between layers, 0 to 1
    outcome_between: float  # the same of the outcome
    shift_p: float  # of the pooled r, two-sided, against rearranged layers; at least 1/(2L)
    shift_p_holm: float  # adjusted for the number of descriptors
    within_p: float | None  # of the within-layer r, two-sided, against heads permuted inside layers
    within_p_holm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All descriptors of one version against one outcome."""

    layers: list[int]  # those with a head that has both
    heads: int  # over all these layers
    descriptors: Mapping[str, Association | None]
    best: str  # descriptor with the largest |pooled r|
    best_abs_r: float
    best_shift_p: float  # against the largest |r| of any descriptor with layers rearranged
    shift_null: list[float]  # that largest |r|, ascending, one per rearrangement
    regressions: Mapping[str, Regression | None]  # published, corrected


def unfit(descriptors: Mapping[str, np.ndarray], outcome: np.ndarray) -> str | None:
    """Why there can be no table, if so."""
    known = np.isfinite(descriptors["op"]) & np.isfinite(outcome)
    layers = int(known.any(1).sum())
    if layers < LEAST_LAYERS:
        return f"{layers} layers with a spectrum and an attention are too few (needs {LEAST_LAYERS})"
    if known.sum() < LEAST_HEADS:
        return f"{int(known.sum())} heads with a spectrum and an attention are too few (needs {LEAST_HEADS})"
    if not varies(outcome[known]):
        return "all heads attend alike: there is nothing to predict"
    if not any(varies(values[known]) for values in descriptors.values()):
        return "all heads have the same spectrum: there is nothing to predict from"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """The descriptors that can be associated with an outcome, and the outcome, over the layers that have both."""

    layers: list[int]
    x: Mapping[str, np.ndarray]  # name → (layer, head), NaN where a head has none, as in y
    y: np.ndarray  # (layer, head)
    heads: int  # over all these layers
    pooled: Mapping[str, float]  # r of each descriptor with the outcome
    reasons: Mapping[str, str]  # why a descriptor is not among them

    @property
    def best(self) -> str:
        """The descriptor with the largest |r|; the first of equals."""
        return max(self.pooled, key=lambda name: abs(self.pooled[name]))


def variables(descriptors: Mapping[str, np.ndarray], outcome: np.ndarray) -> Variables:
    """What of (layer, head) descriptors and an outcome, NaN where a head has none, `unfit` lets pass."""
    known = np.isfinite(descriptors["op"]) & np.isfinite(outcome)
    layers = np.flatnonzero(known.any(1))
    gaps = np.where(known, 0, np.nan)[layers]
    y = outcome[layers] + gaps
    x, reasons = {}, {}
    for name, values in descriptors.items():
        if not np.isfinite(values[known]).all():
            reasons[f"descriptors.{name}"] = f"{int((~np.isfinite(values[known])).sum())} heads have no {name}"
        elif not varies(values[known]):
            reasons[f"descriptors.{name}"] = f"{name} is the same for all heads"
        else:
            x[name] = values[layers] + gaps
    pooled = {name: pearson(v, y)["pooled"] for name, v in x.items()}
    return Variables(layers=layers.tolist(), x=x, y=y, heads=int(known.sum()), pooled=pooled, reasons=reasons)


def tabulate(
    descriptors: Mapping[str, np.ndarray], outcome: np.ndarray, *, seed: int, best_only: bool = False
) -> tuple[Table, dict[str, str]]:
    """Associate every descriptor with an outcome that `unfit` lets pass.

    Parameters
    ----------
    descriptors : name → (layer, head), NaN where a head has none.
    outcome : (layer, head), NaN likewise.
    best_only : leave out the other descriptors' associations, and the published regression.

    Returns
    -------
    The table, and the reason for each of its nulls by path pattern.
    """
    found = variables(descriptors, outcome)
    x, y, pooled, best = found.x, found.y, found.pooled, found.best
    third = np.arange(len(outcome)) * 3 // len(outcome)
    null = dict(zip(x, shift_null(np.stack(list(x.values())), y), strict=True))
    largest = np.sort(np.max(np.abs(list(null.values())), axis=0))
    shift_p = {name: p_value(pooled[name], null[name]) for name in x}
    within = dict(zip(x, permutation_null(list(x.values()), y, seed=seed).T, strict=True))
    within_p = {name: p_value(r, within[name]) for name, v in x.items() if (r := pearson(v, y)["within"]) is not None}
    shift_holm = dict(zip(shift_p, holm(list(shift_p.values())), strict=True))
    within_holm = dict(zip(within_p, holm(list(within_p.values())), strict=True))
    thirds = [np.flatnonzero(third[found.layers] == k) for k in range(3)]
    associations = {
        name: _associate(
            x[name],
            y,
            thirds,
            seed=seed,
            shift_p=shift_p[name],
            shift_p_holm=shift_holm[name],
            within_p=within_p.get(name),
            within_p_holm=within_holm.get(name),
        )
        for name in ([best] if best_only else x)
    }
    table = Table(
        layers=found.layers,
        heads=found.heads,
        descriptors=dict.fromkeys(descriptors) | associations,
        best=best,
        best_abs_r=abs(pooled[best]),
        best_shift_p=p_value(pooled[best], largest),
        shift_null=largest.tolist(),
        regressions={
            kind: None if best_only and kind != CORRECTED else regression(found, kind, seed=seed)
            for kind in REGRESSIONS
        },
    )
    reasons = dict(found.reasons) | {
        "descriptors.*.r*": "no spread in this part of the heads, or in a resample of it",
        "descriptors.*.spearman.*": "no spread in this part of the heads",
        "descriptors.*.thirds*": "no spread in this third of the depth",
        "descriptors.*.by_layer.*": "no spread among this layer's heads",
        "descriptors.*.within_p*": "no spread inside the layers",
        "regressions.*.beta": "the predictors are collinear",
        "regressions.*.vif": "the predictors are collinear",
        "regressions.*": "a predictor is missing or the same for all heads",
    }
    return table, reasons


def _associate(x: np.ndarray, y: np.ndarray, thirds: list[np.ndarray], *, seed: int, **p: float | None) -> Association:
    whole = pearson(x, y)
    halves = [(x[rows], y[rows]) if varies(x[rows]) and varies(y[rows]) else None for rows in thirds]
    return Association(
        r={part: whole[part] for part in PARTS},
        r_interval=cluster_intervals(x, y, seed=seed),
        spearman=spearman(x, y),
        thirds=[None if pair is None else pearson(*pair)["pooled"] for pair in halves],
        thirds_spearman=[None if pair is None else pooled_spearman(*pair) for pair in halves],
        by_layer=by_layer(x, y),
        descriptor_between=whole["x_between"],
        outcome_between=whole["y_between"],
        **p,
    )


def regression(found: Variables, kind: str, *, seed: int) -> Regression | None:
    """One of REGRESSIONS; None where a predictor is not among the variables."""
    names, x, y = REGRESSIONS[kind], found.x, found.y
    if any(name not in x for name in names):
        return None
    layer = np.broadcast_to(np.arange(len(y))[:, None], y.shape)
    known = np.isfinite(y)
    return regress(names, np.stack([x[name][known] for name in names], -1), y[known], layer[known], seed=seed)
