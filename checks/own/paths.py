"""What a claim may read: every metric of every analysis, and every quantity of the tables, with its invariance.

A metric is one number and stands in a record under its own path, as `delta_svd.metrics.functional_cos`. A quantity has
axes, as `heads.entropy` over layers and heads, and needs a reducer.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from analyses import records
from checks.claims import CLAIMS
from checks.maps import invariance
from checks.maps.names import ORDER
from checks.reference import RECORDED
from checks.tables.quantities import TABLES, Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """One path that a claim may name."""

    path: str
    analysis: str
    meaning: str
    axes: tuple[str, ...]  # none for a single number
    unit: str
    invariant: bool | None  # whether no exact change of parameters moves it; None where no theorem says
    why: str
    quantity: Quantity | None  # None for a metric


def readable() -> Mapping[str, Readable]:
    """Path → what it is, in the order of the page."""
    return {one.path: one for one in (*_metrics(), *_quantities())}


def nearest(path: str) -> str:
    """The known path that is most like this one, for a message."""
    return difflib.get_close_matches(path, readable(), n=1, cutoff=0)[0]


@cache
def _metrics() -> tuple[Readable, ...]:
    """The metrics of the recorded result of the reference model, which every model's records have."""
    conditions = {condition.path: condition for gate in CLAIMS for condition in gate.conditions}
    found = []
    for path in sorted(RECORDED.glob("*.json")):
        record = records.read_json(path)
        for name, metric in record.get("metrics", {}).items():
            at = f"{record['analysis']}.metrics.{name}"
            known = conditions.get(at)
            meaning = known.quantity if known else metric["method"]
            invariant, why = _invariance(record["analysis"], f"metrics.{name}.value")
            found.append(
                Readable(
                    path=at, analysis=record["analysis"], meaning=meaning, axes=(), unit=known.unit if known else "",
                    invariant=invariant, why=why, quantity=None,
                )
            )  # fmt: skip
    return tuple(found)


def _quantities() -> Iterator[Readable]:
    for table, columns in TABLES.items():
        for quantity in columns:
            invariant, why = _invariance(quantity.analysis, quantity.path)
            yield Readable(
                path=f"{table}.{quantity.name}", analysis=quantity.analysis, meaning=quantity.meaning,
                axes=quantity.axes, unit=quantity.unit, invariant=invariant, why=why, quantity=quantity,
            )  # fmt: skip


def _invariance(analysis: str, path: str) -> tuple[bool | None, str]:
    """By the theorem on the statistic, or on the list that it is one of; reducers do not see the order of heads."""
    words = path.split(".")
    for listed, moved in invariance.STATISTICS.get(analysis, {}).items():
        pattern = listed.split(".")
        if len(pattern) > len(words) or any(a not in (b, "*") for a, b in zip(pattern, words, strict=False)):
            continue
        rest = words[len(pattern) :]
        if all(word.startswith("{") for word in rest) or moved.invariant:
            by = moved.by | moved.by_normalised
            return not by - {*(ORDER if rest else ())}, moved.why
    return None, "no theorem says whether exact changes of parameters move it"
