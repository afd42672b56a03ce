"""Gates as data, and the one place that compares.

A gate names numbers in the records and says between which bounds they must lie; `evaluate` looks
them up and returns an Outcome. Two kinds, never mixed: an *integrity* gate is an identity that
the mathematics promises, so a failure means that the software or its input is wrong; a *claim*
gate asks whether a published finding holds on this model.

A claim has up to two rows. The *model* row asks it of a statistic that no exact change of parameters
moves. The *stored* row asks it of the published number, in the coordinates in which the weights happen
to be stored; where that number is itself invariant, the two rows are one.

How a number and its interval are held against a limit is in `compare`. A p-value alone never fails: that needs a test
which would have seen an effect of the stated size in 80 % of trials.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from analyses import registry
from analyses.errors import LEFT_OUT
from analyses.forward.foreign import foreign
from checks.claims.compare import Comparator, Status, compare, compare_worst, p_value, satisfies

Kind = Literal["integrity", "absence", "presence", "schedule", "association"]
Row = Literal["model", "stored"]

POWER = 0.8  # share of planted effects that a test must see before its silence means anything
STORED = ".stored"  # ends the id of a row about the stored coordinates


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One number and its limit."""

    path: str  # "analysis.metrics.name" or "analysis.identities.name"
    comparator: Comparator
    threshold: float | Mapping[str, float]  # a mapping goes by the record's forward dtype
    quantity: str  # the number in words, for the page
    unit: str = ""  # none: a pure number
    # The limit that the interval must respect to pass; the threshold itself unless given. Spearman
    # claims ask for ρ ≤ −0.5 with an interval below 0.
    interval_bound: float | None = None
    # The number is a p-value. Above its limit it fails only if the metric named here, the share of planted
    # effects that the test sees, is at least POWER; `effect` is what was planted.
    test: bool = False
    power: str | None = None
    effect: str = "the planted effect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One question with a yes or a no."""

    id: str
    kind: Kind
    claim: str  # one sentence that names the quantity
    conditions: tuple[Condition, ...]  # all must hold; the first is drawn on the page
    reason: str  # why this threshold, and from where
    minimum: Mapping[str, float] = field(default_factory=dict)  # name in a metric's n → least count
    flattering: tuple[str, ...] = ()  # of these, too few take nothing from a failure: it stands
    errata: str = ""  # what a reader of the published scripts must know
    row: Row = "model"
    section: str = ""  # the analysis in whose section it stands, where that is not the one that its number is from
    rival: str = ""  # the row with the other reading of the same finding, where the field is divided

    @property
    def analysis(self) -> str:
        """The analysis to whose section it belongs."""
        return self.section or self.conditions[0].path.partition(".")[0]

    @property
    def reads(self) -> tuple[str, ...]:
        """The analyses in whose records its numbers are."""
        return tuple(dict.fromkeys(condition.path.partition(".")[0] for condition in self.conditions))


def identity(
    id: str,
    claim: str,
    quantity: str,
    *,
    limit: float | Mapping[str, float],
    reason: str,
    errata: str = "",
    unit: str = "",
) -> Gate:
    """The integrity gate "analysis.name" of the number of that name among the record's identities."""
    analysis, name = id.split(".")
    path = f"{analysis}.identities.{name}"
    condition = Condition(path=path, comparator="<=", threshold=limit, quantity=quantity, unit=unit)
    return Gate(id=id, kind="integrity", claim=claim, conditions=(condition,), reason=reason, errata=errata)


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
    members: Mapping[str, Mapping[str, Any]]  # of a worst: each family's value and intervals
    test: bool
    p: float | None  # of this answer: how often it would be given if the opposite just held; None where undecided


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A gate's answer on one model."""

    id: str
    kind: Kind
    analysis: str
    claim: str
    row: Row
    status: Status
    reason: str | None
    findings: tuple[Finding, ...]
    minimum: Mapping[str, float]
    p: float | None  # of the whole answer
    why: str  # the gate's reason for its threshold
    errata: str


def evaluate(gate: Gate, records: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """Judge one gate from the records; `records` maps an analysis' name to its record.

    A record with a key `error` (the analysis crashed) makes an error; a record with `skipped`, or
    one that is not there, makes a skip. A metric without a value is inconclusive, or a skip where
    the record says that the question does not apply. Of several conditions the worst decides:
    error, skip, fail, inconclusive, pass; too small a sample is inconclusive whatever the numbers, but where there is
    no number its own reason stands: of equal layers no pair is left, and that they are equal is what is to be said.
    """
    findings = tuple(_find(condition, records) for condition in gate.conditions)
    status, reason = deciding(findings).status, deciding(findings).reason
    numberless = status == "inconclusive" and deciding(findings).observed is None
    if status in ("fail", "inconclusive", "pass") and not numberless and (count := _count(gate, findings, status)):
        status, reason = count
    if gate.kind != "integrity" and status in ("fail", "pass") and (why := _foreign(gate, records)):
        status, reason = "inconclusive", why
    return Outcome(
        id=gate.id,
        kind=gate.kind,
        analysis=gate.analysis,
        claim=gate.claim,
        row=gate.row,
        status=status,
        reason=reason,
        findings=findings,
        minimum=dict(gate.minimum),
        p=_p_of_all(status, findings),
        why=gate.reason,
        errata=gate.errata,
    )


OF_WEIGHTS = tuple(f"schedule_fit.metrics.{name}_" for name in ("invariant_scale", "input_gain", "published"))
"""Beginnings of paths of numbers that no text determines, in records others of which it does."""


def _foreign(gate: Gate, records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why a claim that reads the text cannot be decided by it; None where the text is in the model's language."""
    paths = [condition.path for condition in gate.conditions]
    if not any(registry.reads_text(p.partition(".")[0]) and not p.startswith(OF_WEIGHTS) for p in paths):
        return None
    facts = (records[name].get("calibration") for name in registry.FORWARD if name in records)
    return next((why for each in facts if each and (why := foreign(each.get("language", {})))), None)


DECISIVE: tuple[Status, ...] = ("error", "skip", "fail", "inconclusive", "pass")
"""Of several conditions, the worst decides."""


def deciding(findings: Sequence[Finding]) -> Finding:
    """The condition that gives a gate its answer: of those of the worst status, the first."""
    return min(findings, key=lambda finding: DECISIVE.index(finding.status))


def _p_of_all(status: Status, findings: Sequence[Finding]) -> float | None:
    """Of a pass the largest p of its conditions, all of which must hold; of a failure the least, times their number."""
    if status == "pass":
        return max((f.p for f in findings if f.p is not None), default=None)
    if status == "fail":
        failed = [f.p for f in findings if f.status == "fail" and f.p is not None]
        return min(1.0, len(findings) * min(failed)) if failed else None
    return None


def _count(gate: Gate, findings: tuple[Finding, ...], status: Status) -> tuple[Status, str] | None:
    """What the sample's size says of the gate, if anything; a number that hides its n is an error."""
    for unit, least in gate.minimum.items():
        name = unit.replace("_", " ")
        counts = [f.n[unit] for f in findings if unit in f.n]
        if not counts and any(f.observed is not None for f in findings):
            return "error", f"the record does not say of how many {name} the number was made"
        if counts and min(counts) < least and not (status == "fail" and unit in gate.flattering):
            return "inconclusive", f"{min(counts):g} {name} are too few for this claim (needs {least:g})"
    return None


def _find(condition: Condition, records: Mapping[str, Mapping[str, Any]]) -> Finding:
    analysis, section, name = condition.path.split(".")
    record = records.get(analysis)
    status: Status
    metric: Mapping[str, Any] = {}
    threshold: float | None = None
    if record is None:
        status, reason = "skip", f"{analysis} was {LEFT_OUT}"
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
            # What the library rounds to a narrower type inside a pass is as right as that type.
            threshold = threshold[record.get("softmax_dtype") or record["dtype"]]
        power = record["metrics"].get(condition.power.rpartition(".")[2]) if condition.power else None
        status, reason = _judge(condition, metric, threshold, power)
        if status == "skip" and reason == record.get("incomplete"):
            status = "error"  # the question applies, and what it rests on failed
    observed, interval, members = metric.get("value"), metric.get("interval"), metric.get("members") or {}
    bound = condition.interval_bound
    margin = None
    if observed is not None and threshold is not None:
        margin = threshold - observed if condition.comparator.startswith("<") else observed - threshold
    finding = Finding(
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
        members=members,
        test=condition.test,
        p=None,
    )
    return replace(finding, p=_p_of(finding)) if status in ("pass", "fail") else finding


def _p_of(finding: Finding) -> float | None:
    """Of a decided condition; None for a test that fails by its power, which is no chance of this answer."""
    if finding.test:
        return finding.observed if finding.status == "pass" else None
    bound = finding.interval_bound if finding.status == "pass" and finding.interval_bound is not None else None
    limit = finding.threshold if bound is None else bound
    known = [m for m in finding.members.values() if m["value"] is not None]
    values = [(m["value"], m["interval"]) for m in known] or [(finding.observed, finding.interval)]
    if finding.status == "pass":
        return max(p_value(value, interval, limit) for value, interval in values)
    outside = [v for v in values if not satisfies(v[0], finding.comparator, limit)]
    return min(1.0, len(values) * min(p_value(value, interval, limit) for value, interval in outside))


def _judge(
    condition: Condition, metric: Mapping[str, Any], threshold: float, power: Mapping[str, Any] | None
) -> tuple[Status, str | None]:
    if metric["value"] is None:
        return ("inconclusive" if metric["applies"] else "skip"), metric["reason"]
    if condition.test:
        return _tested(condition, metric["value"], threshold, power)
    bound = threshold if condition.interval_bound is None else condition.interval_bound
    interval, members = metric["interval"], metric.get("members")
    if members:
        status = compare_worst(members, condition.comparator, threshold, bound)
    else:
        status = compare(metric["value"], interval, condition.comparator, threshold, bound)
    if status != "inconclusive":
        return status, None
    if members:
        return status, "some of the families' intervals do not decide it"
    if interval:
        return status, f"the interval from {interval[0]:.3g} to {interval[1]:.3g} does not decide it"
    return status, "the number is not finite"


def _tested(
    condition: Condition, p: float, threshold: float, power: Mapping[str, Any] | None
) -> tuple[Status, str | None]:
    """A p-value: a small one passes; a large one fails only where the test would have seen what was planted."""
    if satisfies(p, condition.comparator, threshold):
        return "pass", None
    if not math.isfinite(p):
        return "inconclusive", "the number is not finite"
    seen = power["value"] if power else None
    if seen is not None and seen >= POWER:
        return "fail", f"p = {p:.2g}, and {condition.effect} would have been seen in {seen:.0%} of trials"
    known = f"{condition.effect} would have been seen in {seen:.0%} of trials only" if seen is not None else None
    return "inconclusive", f"not shown: p = {p:.2g}" + (f", and {known}" if known else "")
