"""Claims of your own as gates: what they reduce is put beside the record's metrics, and judged like these."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyses import records
from analyses.numerics import intervals, surrogates
from analyses.numerics.pvalues import share_at_least
from analyses.records import Metric
from checks.claims.gate import STORED, Condition, Gate
from checks.own.statement import Statement

PART = "own"  # key of a record, beside `metrics`, of numbers that are reduced when it is judged
DRAWS = 999  # of each kind of chance track
LEVEL = 0.05
SEED = 0

Records = Mapping[str, Mapping[str, Any]]


def gates(claims: Sequence[Statement], stated: str) -> list[Gate]:
    """A gate for each claim: a row about the model where its statistic is invariant, else one about what is stored.

    Parameters
    ----------
    stated : when the claims were first seen, in words.
    """
    return [_gate(claim, stated) for claim in claims]


def _gate(claim: Statement, stated: str) -> Gate:
    path = claim.reads.path if claim.reduce is None else f"{claim.reads.analysis}.{PART}.{claim.id}"
    how = f"{claim.reduce} of " if claim.reduce else ""
    conditions = [
        Condition(
            path=path,
            comparator=claim.comparator,  # type: ignore[arg-type]
            threshold=claim.threshold,
            unit=claim.unit,
            quantity=f"{how}{claim.reads.meaning}",
        )
    ]
    if claim.reduce == "spearman" and claim.kind == "schedule":
        conditions.append(
            Condition(
                path=f"{path}_p",
                comparator="<=",
                threshold=LEVEL,
                unit="",
                quantity="p among tracks of chance",
                test=True,
            )
        )
    stored = not claim.reads.invariant
    return Gate(
        id=claim.id + (STORED if stored else ""),
        kind=claim.kind,  # type: ignore[arg-type]
        claim=claim.sentence,
        conditions=tuple(conditions),
        reason=f"{claim.reason}. {stated}. Invariance: {claim.reads.why}.",
        minimum=claim.minimum,
        row="stored" if stored else "model",
        section=claim.reads.analysis,
    )


def with_own(found: Records, claims: Sequence[Statement]) -> Records:
    """Records with what the claims reduce from them; where that cannot be had, with its reason."""
    reduced: dict[str, dict[str, Any]] = {}
    for claim in claims:
        if claim.reduce is not None and claim.reads.analysis in found:
            reduced.setdefault(claim.reads.analysis, {}).update(records.plain(_reduced(claim, found)))
    return {**found, **{name: {**found[name], PART: part} for name, part in reduced.items()}}


def _reduced(claim: Statement, found: Records) -> dict[str, Metric]:
    quantity = claim.reads.quantity
    assert quantity is not None and claim.reduce is not None
    rows: dict[int, list[float]] = {}
    for place, value in quantity.of(found[claim.reads.analysis]):
        if value is not None:
            rows.setdefault(int(place.get("layer", place.get("pair", 0))), []).append(float(value))
    unit = "layers" if "layer" in claim.reads.axes else "pairs"
    n = {unit: len(rows), "values": sum(map(len, rows.values()))}
    if not rows:
        none = Metric(value=None, n=n, reason=f"the record has no {claim.reads.path}")
        return {claim.id: none, f"{claim.id}_p": none}
    values = [np.array(rows[at]) for at in sorted(rows)]
    if claim.reduce == "spearman":
        return _with_depth(claim, values, n)
    return {claim.id: _over_layers(claim, values, n, unit)}


def _over_layers(claim: Statement, values: list[np.ndarray], n: Mapping[str, int], unit: str) -> Metric:
    def statistic(drawn: np.ndarray) -> np.ndarray:
        return np.array([_reduce(claim, np.concatenate([values[i] for i in row])) for row in drawn])

    value = float(statistic(np.arange(len(values))[None])[0])
    if claim.reduce in ("min", "max"):
        return Metric(value=value, n=n, method=f"{claim.reduce} over {unit}: no interval, since it is not of a sample")
    within = (0.0, 1.0) if claim.reduce == "share above" else (-np.inf, np.inf)
    interval = intervals.bootstrap(statistic, len(values), seed=SEED, within=within)
    return Metric(value=value, interval=interval, n=n, method=f"{claim.reduce}; bootstrap over {unit}")


def _reduce(claim: Statement, values: np.ndarray) -> float:
    match claim.reduce:
        case "median":
            return float(np.median(values))
        case "min":
            return float(values.min())
        case "max":
            return float(values.max())
        case _:
            return float((values > claim.above).mean())


def _with_depth(claim: Statement, values: list[np.ndarray], n: Mapping[str, int]) -> dict[str, Metric]:
    track = np.array([row.mean() for row in values])
    rho, interval = intervals.spearman(np.arange(len(track)), track)
    if rho is None:
        none = Metric(value=None, n=n, reason="all layers are alike, or there are too few to correlate with depth")
        return {claim.id: none, f"{claim.id}_p": none}
    sign = -1.0 if claim.comparator.startswith("<") else 1.0
    rng = np.random.default_rng(SEED)
    shares = {
        kind: share_at_least(sign * _rho(getattr(surrogates, kind)(track, DRAWS, rng)), sign * rho)
        for kind in surrogates.KINDS
    }
    worst = max(shares, key=shares.__getitem__)
    return {
        claim.id: Metric(value=rho, interval=interval, n=n, method="Spearman's ρ of a layer's mean with depth"),
        f"{claim.id}_p": Metric(
            value=shares[worst], n=n, where=worst,
            method=f"largest share of {DRAWS} walks, autoregressions or orders of the track as far in this direction",
        ),
    }  # fmt: skip


def _rho(tracks: np.ndarray) -> np.ndarray:
    """Spearman's ρ with depth of (draw, layer) tracks; ties as they fall."""
    depth = np.arange(tracks.shape[1]) - (tracks.shape[1] - 1) / 2
    ranks = tracks.argsort(1).argsort(1) - (tracks.shape[1] - 1) / 2
    return ranks @ depth / (depth @ depth)
