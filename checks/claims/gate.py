"""Gates are data, and this is the one place that compares.

A gate names numbers in the records and says between which bounds they must lie; `evaluate` looks
them up and returns an Outcome. Two kinds, never mixed: an *integrity* gate is an identity that
the mathematics promises, so a failure means that the software or its input is wrong; a *claim*
gate asks whether a published finding holds on this model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "inconclusive", "skip", "error"]
Comparator = Literal["<=", "<", ">=", ">"]
Kind = Literal["integrity", "absence", "presence", "schedule", "association"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One number and its limit."""

    path: str  # "analysis.metrics.name" or "analysis.identities.name"
    comparator: Comparator
    threshold: float | Mapping[str, float]  # a mapping goes by the record's forward dtype
    unit: str  # "" for a pure number
    quantity: str  # the number in words, for the page
    # The limit that the interval must respect to pass; the threshold itself unless given. Spearman
    # claims ask for ρ ≤ −0.5 with an interval below 0.
    interval_bound: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One question with a yes or a no."""

    id: str
    kind: Kind
    claim: str  # one sentence that names the quantity
    conditions: tuple[Condition, ...]  # all must hold; the first is drawn on the page
    reason: str  # why this threshold, and from where
    minimum: Mapping[str, float] = field(default_factory=dict)  # name in a metric's n → least count
    errata: str = ""  # what a reader of the published scripts must know
    families: tuple[str, ...] | None = None  # that its numbers need: a twin is spared the others; None: all
    spectra: bool = False  # whether its numbers need the residuals' spectra: a twin is spared them otherwise

    @property
    def analysis(self) -> str:
        return self.conditions[0].path.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One condition, compared."""

    path: str
    quantity: str
    status: Status
    observed: float | None
    interval: tuple[float, float] | None
    comparator: Comparator
    threshold: float | None
    interval_bound: float | None
    margin: float | None  # in the unit of the quantity; positive inside the limit
    unit: str
    n: Mapping[str, float]
    where: str | None
    reason: str | None  # why it is not a plain pass or fail


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A gate's answer on one model."""

    id: str
    kind: Kind
    analysis: str
    claim: str
    status: Status
    reason: str | None
    findings: tuple[Finding, ...]
    minimum: Mapping[str, float]
    why: str  # the gate's reason for its threshold
    errata: str


def satisfies(value: float, comparator: Comparator, threshold: float) -> bool:
    """The comparison, in positive form: false for a NaN on either side."""
    match comparator:
        case "<=":
            return value <= threshold
        case "<":
            return value < threshold
        case ">=":
            return value >= threshold
        case ">":
            return value > threshold


def compare(
    observed: float | None,
    interval: tuple[float, float] | None,
    comparator: Comparator,
    threshold: float,
    interval_bound: float,
) -> Status:
    """Pass inside the limit with the whole interval inside `interval_bound`; fail outside it with
    the whole interval outside; inconclusive otherwise, and for a number that is not finite.

    >>> compare(0.04, (0.03, 0.05), "<=", 0.1, 0.1), compare(0.09, (0.07, 0.12), "<=", 0.1, 0.1)
    ('pass', 'inconclusive')
    """
    ends = interval or (observed, observed)
    if any(x is None or not math.isfinite(x) for x in (observed, *ends, threshold, interval_bound)):
        return "inconclusive"
    if satisfies(observed, comparator, threshold) and all(satisfies(e, comparator, interval_bound) for e in ends):
        return "pass"
    if not satisfies(observed, comparator, threshold) and not any(satisfies(e, comparator, threshold) for e in ends):
        return "fail"
    return "inconclusive"


def evaluate(gate: Gate, records: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """Judge one gate from the records; `records` maps an analysis' name to its record.

    A record with a key `error` (the analysis crashed) makes an error; a record with `skipped`, or
    one that is not there, makes a skip. A metric without a value is inconclusive, or a skip where
    the record says that the question does not apply. Of several conditions the worst decides:
    error, skip, fail, inconclusive, pass; too small a sample is inconclusive whatever the numbers.
    """
    findings = tuple(_find(condition, records) for condition in gate.conditions)
    decisive = min(findings, key=lambda f: _DECISIVE.index(f.status))
    status, reason = decisive.status, decisive.reason
    if status in ("fail", "inconclusive", "pass") and (count := _count(gate, findings)):
        status, reason = count
    return Outcome(
        id=gate.id,
        kind=gate.kind,
        analysis=gate.analysis,
        claim=gate.claim,
        status=status,
        reason=reason,
        findings=findings,
        minimum=dict(gate.minimum),
        why=gate.reason,
        errata=gate.errata,
    )


_DECISIVE: tuple[Status, ...] = ("error", "skip", "fail", "inconclusive", "pass")


def _count(gate: Gate, findings: tuple[Finding, ...]) -> tuple[Status, str] | None:
    """What the sample's size says of the gate, if anything; a number that hides its n is an error."""
    for unit, least in gate.minimum.items():
        name = unit.replace("_", " ")
        counts = [f.n[unit] for f in findings if unit in f.n]
        if not counts and any(f.observed is not None for f in findings):
            return "error", f"the record does not say of how many {name} the number was made"
        if counts and min(counts) < least:
            return "inconclusive", f"{min(counts):g} {name} are too few for this claim (needs {least:g})"
    return None


def _find(condition: Condition, records: Mapping[str, Mapping[str, Any]]) -> Finding:
    analysis, section, name = condition.path.split(".")
    record = records.get(analysis)
    status: Status
    metric: Mapping[str, Any] = {}
    threshold: float | None = None
    if record is None:
        status, reason = "skip", f"{analysis} was not measured"
    elif "error" in record:
        status, reason = "error", f"{analysis} failed: {record['error']}"
    elif "skipped" in record:
        status, reason = "skip", record["skipped"]
    elif name not in record[section]:
        status, reason = "error", f"the record of {analysis} has no {section}.{name}"
    else:
        metric = record[section][name]
        threshold = condition.threshold
        if isinstance(threshold, Mapping):
            threshold = threshold[record["dtype"]]
        status, reason = _judge(condition, metric, threshold)
    observed, interval = metric.get("value"), metric.get("interval")
    bound = condition.interval_bound
    margin = None
    if observed is not None and threshold is not None:
        margin = threshold - observed if condition.comparator.startswith("<") else observed - threshold
    return Finding(
        path=condition.path,
        quantity=condition.quantity,
        status=status,
        observed=observed,
        interval=tuple(interval) if interval else None,
        comparator=condition.comparator,
        threshold=threshold,
        interval_bound=bound,
        margin=margin,
        unit=condition.unit,
        n=dict(metric.get("n", {})),
        where=metric.get("where"),
        reason=reason,
    )


def _judge(condition: Condition, metric: Mapping[str, Any], threshold: float) -> tuple[Status, str | None]:
    if metric["value"] is None:
        return ("inconclusive" if metric["applies"] else "skip"), metric["reason"]
    bound = threshold if condition.interval_bound is None else condition.interval_bound
    interval = metric["interval"]
    status = compare(metric["value"], interval, condition.comparator, threshold, bound)
    if status != "inconclusive":
        return status, None
    if interval:
        return status, f"the interval from {interval[0]:.3g} to {interval[1]:.3g} does not decide it"
    return status, "the number is not finite"
