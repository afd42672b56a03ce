"""How far a sweep is, read off the disk, so from any shell and whoever drives it.

One line a model, which is a series of revisions where there is one. What is counted are records.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from checks.sweep import done, failures, lease
from checks.sweep.failures import Failure, History
from checks.sweep.plan import Element, Plan


@dataclass(slots=True)
class Count:
    """Records of one model, by where they stand."""

    model: str
    done: int = 0
    running: int = 0
    failed: int = 0
    missing: int = 0

    @property
    def all(self) -> int:
        return self.done + self.running + self.failed + self.missing


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a sweep stands."""

    counts: tuple[Count, ...]
    given_up: tuple[tuple[Element, Failure], ...]

    @property
    def done(self) -> int:
        return sum(count.done for count in self.counts)

    @property
    def all(self) -> int:
        return sum(count.all for count in self.counts)

    @property
    def complete(self) -> bool:
        return self.done == self.all


def standing(plan: Plan, known: Collection[str] = ()) -> Standing:
    """Count the plan's records; elements whose ids are `known` to be done are not looked at again."""
    counts: dict[str, Count] = {}
    ended: dict[str, list[Failure]] = {}
    for failure in failures.read(plan.state / "failures"):
        ended.setdefault(failure.element, []).append(failure)
    given_up: dict[tuple[str, int], tuple[Element, Failure]] = {}
    for element in plan.checkpoints:
        count = counts.setdefault(element.source.series, Count(element.source.series))
        missing = {} if element.id in known else done.missing(plan.out, element)
        count.done += len(element.tasks) - len(missing)
        if not missing:
            continue
        held = [lease.read(plan.state / "leases" / f"{id}.json") for id in (element.id, *element.after)]
        works = any(one and one.lives for one in held)
        history = History(ended.get(element.id, ()))
        for name in missing:
            if works:
                count.running += 1
            elif failure := history.given_up(element.tasks[name].id):
                count.failed += 1
                given_up[element.id, failure.attempt] = element, failure
            else:
                count.missing += 1
    return Standing(tuple(counts.values()), tuple(given_up.values()))


def lines(now: Standing, driver: Mapping[str, Any] | None) -> list[str]:
    """The table, and a line on the pace of the driver that works on it (what its lease says), if one does."""
    width = max(len(count.model) for count in now.counts)
    found = [
        f"{count.model:<{width}}  done {count.done}  running {count.running}  "
        f"failed {count.failed}  missing {count.missing}"
        for count in now.counts
    ]
    return [*found, f"{now.done} of {now.all} records" + _pace(now, driver)]


def _pace(now: Standing, driver: Mapping[str, Any] | None) -> str:
    if now.complete:
        return ", complete"
    if driver is None:
        return ", no driver at work"
    if "started" not in driver:
        return ", the driver is looking what is there"
    made = now.done - driver["done"]
    minutes = (time.time() - driver["started"]) / 60
    if made <= 0 or minutes <= 0:
        return ", the first are on their way"
    left = (now.all - now.done - sum(count.failed for count in now.counts)) * minutes / made
    return f", {made / minutes:.1f} a minute, about {_duration(left)} left"


def _duration(minutes: float) -> str:
    """
    >>> _duration(0.4), _duration(12), _duration(200)
    ('1 min', '12 min', '3 h 20 min')
    """
    whole = max(1, round(minutes))
    return f"{whole // 60} h {whole % 60} min" if whole >= 60 else f"{whole} min"


def why_not(now: Standing, *, most: int = 20) -> list[str]:
    """What was given up, a line each."""
    found = [
        f"{element.source.given}: given up after attempt {failure.attempt} ({failure.kind}): {failure.message}"
        for element, failure in now.given_up
    ]
    return found[:most] + ([f"and {len(found) - most} more"] if len(found) > most else [])
