"""Correlation of the heads' spectra with how they attend.

Seven descriptors of each head's spectrum (`descriptors`) against its mean attention entropy and the mean standard
deviation of its logits, for three spectra: as published (of W_k W_qᵀ), exact (of g = W_kᵀ W_q) and gained (of g with
the norm gains folded in, scale-free under q/k norms). Claims use the exact one. `correlation` says how r is split by
depth and what chance gives, `table` which descriptor is best.

Association is not mechanism: a larger ‖g‖ spreads the logits and so lowers the entropy by arithmetic.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyses.forward.inputs import Inputs
from analyses.head_geometry import gained
from analyses.head_geometry.descriptors import DESCRIPTORS, describe
from analyses.head_geometry.regression import Regression
from analyses.head_geometry.table import CORRECTED, Association, Table, regression, tabulate, unfit, variables
from analyses.records import SCHEMA_VERSION, Metric

VERSIONS = {
    "published": "metric_singvals_per_head",
    "exact": "singvals_per_head",
    "gained": "gained_singvals_per_head",
}
"""Version → key of its spectra in the record of attention_stats."""
OUTCOMES = {"entropy": "mean_attention_entropy_per_head", "logit_std": "mean_logit_std_per_head"}
CLAIMED_VERSION, CLAIMED_OUTCOME = "exact", "entropy"
GAINED = "gained"
CLAIMS = ("best_abs_r", "best_abs_r_shift_p", "within_r_signed", "within_r_p", "r2_out_of_sample")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGeometry:
    """The record."""

    analysis: str = "head_geometry"
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str  # of the forward pass
    num_layers: int
    num_heads: int
    descriptors: Mapping[str, Mapping[str, np.ndarray]]  # version → name → (layer, head)
    outcomes: Mapping[str, np.ndarray | None]  # entropy (nats), logit_std → (layer, head)
    tables: Mapping[str, Mapping[str, Table | None]]  # version → outcome → associations
    metrics: Mapping[str, Metric]
    identities: Mapping[str, Metric]  # anisotropy_rank_eff, r_decomposition
    absent: Mapping[str, str]
    notes: list[str] = field(default_factory=list)


def measure(attention: Mapping[str, Any], *, seed: int, asked: Collection[str] | None = None) -> HeadGeometry:
    """Associate spectra with attention, from the plain record of attention_stats.

    Parameters
    ----------
    attention : the record as read from disk. Where its `dynamic` is null only the descriptors are given.
    asked : names of metrics; what none of them needs is left out. None: all.

    Returns
    -------
    HeadGeometry.
    """
    shape = attention["num_layers"], attention["num_heads"]
    descriptors = {version: describe(_spectra(attention["static"], key, shape)) for version, key in VERSIONS.items()}
    outcomes = {name: _outcome(attention["dynamic"], key, shape) for name, key in OUTCOMES.items()}
    no_forward = attention.get("absent", {}).get("dynamic", "no forward pass was run")
    absent = _absent(descriptors, outcomes, no_forward)
    tables: dict[str, dict[str, Table | None]] = {version: {} for version in VERSIONS}
    for version in VERSIONS:
        for name, values in outcomes.items():
            claimed = (version, name) == (CLAIMED_VERSION, CLAIMED_OUTCOME) and not {*CLAIMS}.isdisjoint(asked or ())
            table, reasons = _table(
                descriptors[version], values, no_forward, asked is None or claimed, seed=seed, whole=asked is None
            )
            tables[version][name] = table
            absent |= {f"tables.{version}.{name}{pattern}": why for pattern, why in reasons.items()}
    return HeadGeometry(
        model=attention["model"],
        dtype=attention["dtype"],
        num_layers=shape[0],
        num_heads=shape[1],
        descriptors=descriptors,
        outcomes=outcomes,
        tables=tables,
        metrics=_metrics(tables, outcomes, absent)
        | _gained(
            tables[GAINED],
            descriptors[GAINED],
            outcomes[CLAIMED_OUTCOME],
            no_forward,
            groups=attention.get("num_kv_heads", shape[1]),
            seed=seed,
            asked=gained.NAMES if asked is None else asked,
        ),
        identities=_identities(attention["static"], descriptors, tables, shape),
        absent=absent,
        notes=[
            "A pooled correlation mixes differences between the heads of a layer with the drift of layers over depth; "
            "both parts are given beside it.",
            "The shift null has 2L − 1 arrangements, so no p-value is below 1/(2L), and none adjusted for "
            f"{len(DESCRIPTORS)} descriptors below {len(DESCRIPTORS)}/(2L); the null of the largest |r| needs none.",
            "The shift null keeps its level for drift without a trend. Two unrelated trends over depth pass it: "
            "only their reversal is as strong, and unrelated random walks do in about one case of six; the "
            "within-layer part does not see drift at all.",
            "Without the anisotropy the regression is still nearly collinear where spectral entropy and effective rank "
            "rise and fall together: read its variance inflation before its coefficients.",
            "A larger head metric spreads the logits and so lowers the entropy by arithmetic. Where shuffled twins "
            "show the same association, it is mechanical.",
        ],
    )


def _absent(
    descriptors: Mapping[str, Mapping[str, np.ndarray]], outcomes: Mapping[str, np.ndarray | None], no_forward: str
) -> dict[str, str]:
    """Why descriptors and outcomes hold nulls, for those that do."""
    absent = {}
    for version, of_version in descriptors.items():
        if not all(np.isfinite(values).all() for values in of_version.values()):
            absent[f"descriptors.{version}.*"] = "the spectrum is zero, or its smallest value is rounding error"
    for name, values in outcomes.items():
        if values is None:
            absent[f"outcomes.{name}"] = no_forward
        elif not np.isfinite(values).all():
            absent[f"outcomes.{name}.*"] = "no query of the text sees enough keys"
    return absent


def _table(
    descriptors: Mapping[str, np.ndarray],
    outcome: np.ndarray | None,
    no_forward: str,
    wanted: bool,
    *,
    seed: int,
    whole: bool,
) -> tuple[Table | None, dict[str, str]]:
    """The associations with one outcome, and the reason for each null by the rest of its path; "" for the table."""
    reason = no_forward if outcome is None else unfit(descriptors, outcome)
    if reason or not wanted:
        return None, {"": reason if wanted else "no claim reads it"}
    table, reasons = tabulate(descriptors, outcome, seed=seed, best_only=not whole)
    return table, {f".{pattern}": why for pattern, why in reasons.items()}


def _metrics(
    tables: Mapping[str, Mapping[str, Table | None]],
    outcomes: Mapping[str, np.ndarray | None],
    absent: Mapping[str, str],
) -> dict[str, Metric]:
    """The claimed numbers, or why the table that holds them is not there."""
    if (table := tables[CLAIMED_VERSION][CLAIMED_OUTCOME]) is not None:
        return _claims(table)
    reason = absent[f"tables.{CLAIMED_VERSION}.{CLAIMED_OUTCOME}"]
    applies = outcomes[CLAIMED_OUTCOME] is not None
    return {name: Metric(value=None, reason=reason, applies=applies) for name in CLAIMS}


def _gained(
    tables: Mapping[str, Table | None],
    descriptors: Mapping[str, np.ndarray],
    outcome: np.ndarray | None,
    no_forward: str,
    *,
    groups: int,
    seed: int,
    asked: Collection[str],
) -> dict[str, Metric]:
    """The numbers of the gained spectra that are asked for, or why there are none."""
    if reason := no_forward if outcome is None else unfit(descriptors, outcome):
        missing = Metric(value=None, reason=reason, applies=outcome is not None)
        return dict.fromkeys((name for name in gained.NAMES if name in asked), missing)
    table, found = tables[CLAIMED_OUTCOME], variables(descriptors, outcome)

    def regressed() -> Regression | None:
        return table.regressions[CORRECTED] if table else regression(found, CORRECTED, seed=seed)

    return gained.metrics(found, regressed, groups=groups, seed=seed, asked=asked)


def _spectra(static: Sequence[Mapping[str, Any]], key: str, shape: tuple[int, int]) -> np.ndarray:
    """(layer, head, mode) singular values, NaN for a head that has none."""
    modes = max(len(values) for layer in static for values in layer[key] if values is not None)
    spectra = np.full((*shape, modes), np.nan)
    for layer, facts in enumerate(static):
        for head, values in enumerate(facts[key]):
            if values is not None:
                spectra[layer, head] = values
    return spectra


def _outcome(dynamic: Sequence[Mapping[str, Any]] | None, key: str, shape: tuple[int, int]) -> np.ndarray | None:
    """(layer, head), NaN for a head without a value; None without a forward pass."""
    if dynamic is None:
        return None
    return np.array([layer[key] for layer in dynamic], dtype=float).reshape(shape)


def _claims(table: Table) -> dict[str, Metric]:
    """What HE1 to HE3 ask, of the exact spectra against entropy."""
    best = table.descriptors[table.best]
    layers = len(table.layers)
    n = {"layers": layers, "heads": table.heads, "degrees_of_freedom_within_layers": table.heads - layers}
    sign = float(np.sign(best.r["pooled"]))
    within, regression = best.r["within"], table.regressions["corrected"]
    constant = f"{table.best} or entropy is the same for all heads of each layer"
    common = dict(n=n, where=table.best)
    return {
        "best_abs_r": Metric(
            value=table.best_abs_r,
            interval=_turned(best.r_interval["pooled"], sign),
            method="largest |Pearson r| of seven descriptors of g; cluster bootstrap over layers, of that one",
            **common,
        ),
        "best_abs_r_shift_p": Metric(
            value=table.best_shift_p,
            method=f"share of {len(table.shift_null)} rearrangements of layers with as large a best of seven",
            **common,
        ),
        "within_r_signed": Metric(
            value=None if within is None else sign * within,
            interval=_turned(best.r_interval["within"], sign),
            method="r of deviations from layer means, times the sign of the pooled r; cluster bootstrap over layers",
            reason=constant if within is None else None,
            **common,
        ),
        "within_r_p": Metric(
            value=best.within_p,
            method="share of permutations of heads inside layers with as large a |within-layer r|",
            reason=constant if within is None else None,
            **common,
        ),
        "r2_out_of_sample": Metric(
            value=None if regression is None else regression.r2_out_of_sample,
            interval=None if regression is None else regression.r2_out_of_sample_interval,
            n=n,
            where=None if regression is None else ", ".join(regression.predictors),
            method="1 − Σ(y − ŷ)²/Σ(y − ȳ)², each layer predicted from the others; bootstrap over layers",
            reason="a predictor is missing or the same for all heads" if regression is None else None,
        ),
    }


def _turned(interval: tuple[float, float] | None, sign: float) -> tuple[float, float] | None:
    """The interval of sign·r."""
    return None if interval is None else (min(sign * end for end in interval), max(sign * end for end in interval))


def _identities(
    static: Sequence[Mapping[str, Any]],
    descriptors: Mapping[str, Mapping[str, np.ndarray]],
    tables: Mapping[str, Mapping[str, Table | None]],
    shape: tuple[int, int],
) -> dict[str, Metric]:
    """anisotropy·rank_eff = d for every spectrum, and r is the sum of its parts for every pair of variables."""
    collinear, split = [], []
    for version, key in VERSIONS.items():
        modes = _spectra(static, key, shape).shape[-1]
        product = descriptors[version]["anisotropy"] * descriptors[version]["rank_eff"] / modes - 1
        collinear += np.abs(product[np.isfinite(product)]).tolist()
        for table in filter(None, tables[version].values()):
            split += [_split_error(one) for one in table.descriptors.values() if one]
    cases = (
        (
            "anisotropy_rank_eff",
            collinear,
            "|anisotropy·rank_eff/d − 1|; worst head",
            "heads",
            "no head has a spectrum",
        ),
        ("r_decomposition", split, "|r − its within part − its between part|; worst pair", "pairs", "no correlation"),
    )
    return {
        name: Metric(
            value=max(errors) if errors else None,
            n={unit: len(errors)},
            method=method,
            reason=None if errors else reason,
            applies=bool(errors),
        )
        for name, errors, method, unit, reason in cases
    }


def _split_error(association: Association) -> float:
    """|r − its within-layer part − its between-layer part|."""
    x, y = association.descriptor_between, association.outcome_between
    within = (association.r["within"] or 0) * np.sqrt(max(0, (1 - x) * (1 - y)))
    between = (association.r["between"] or 0) * np.sqrt(max(0, x * y))
    return abs(association.r["pooled"] - within - between)


def analyse(inputs: Inputs) -> tuple[HeadGeometry, dict[str, Any]]:
    """`measure` as the suite calls it; no arrays."""
    attention = inputs.record_of("attention_stats")
    return measure(attention, seed=inputs.seed, asked=inputs.asked), {}
