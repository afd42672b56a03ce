"""What a claim answers in a result: one number, its interval, its limit and its word, as every export tells it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from analyses import registry
from analyses.errors import InputError
from checks.claims.written import deciding
from checks.verify.compare import Side

NEEDED = ("date", "tensors", "versions", "settings")  # of the manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A claim about the model by the condition that decides it."""

    id: str
    sentence: str
    analysis: str  # whose record has the number
    kind: str
    verdict: str
    why: str | None  # of the verdict, where it is not plain from the number
    quantity: str
    value: float | None  # None where nothing was measured
    interval: tuple[float, float] | None  # 90 %
    comparator: str
    threshold: float | None
    unit: str


def answers(side: Side) -> Iterator[Answer]:
    """Every row about the model, in the order of the page; rows of what is stored say nothing of the model."""
    for claim in side.judged["claims"]:
        finding = claim["findings"][deciding(claim)]
        yield Answer(
            id=claim["id"],
            sentence=claim["claim"],
            analysis=_analysis(finding["path"], claim["analysis"]),
            kind=claim["kind"],
            verdict=claim["verdict"],
            why=claim.get("verdict_reason"),
            quantity=finding["quantity"],
            value=finding["observed"],
            interval=tuple(finding["interval"]) if finding["interval"] else None,
            comparator=finding["comparator"],
            threshold=finding["threshold"],
            unit=finding["unit"] or "",
        )


def _analysis(path: str, section: str) -> str:
    name = path.partition(".")[0]
    return name if name in registry.NAMES else section


def require(side: Side) -> Side:
    """The result, if its manifest has what exports tell; raises InputError for one of an earlier Fathom."""
    if missing := [key for key in NEEDED if not side.manifest.get(key)]:
        raise InputError(f"{side.name}: its manifest has no {', '.join(missing)}; measure again with this Fathom")
    return side


def measured_at(side: Side) -> datetime:
    """When the measurement ended, to the minute, as the manifest has it."""
    return datetime.strptime(side.manifest["date"], "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)


def iso(at: datetime) -> str:
    """ISO 8601 in UTC.

    >>> iso(datetime(2026, 11, 28, 11, 12, tzinfo=UTC))
    '2026-11-28T11:12:00Z'
    """
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
