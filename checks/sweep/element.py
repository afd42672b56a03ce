"""Where an element of a sweep stands, by what the disk and the engine say.

    waiting → queued → running → settling → done, or waiting again, or failed

It settles when its worker is gone: its records are looked for again and again until the engine's patience is over,
since a shared file system may show them late. Only then has an attempt failed.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from analyses import records, shapes
from analyses.errors import InputError
from checks.sweep import done, failures, lease, process
from checks.sweep.engine import Engine
from checks.sweep.failures import Failure, History
from checks.sweep.plan import Element, Plan, log_of
from checks.sweep.process import Described

UNKNOWN, WAITING, QUEUED, RUNNING, SETTLING, DONE, FAILED = (
    "unknown", "waiting", "queued", "running", "settling", "done", "failed"
)  # fmt: skip
OVER = (DONE, FAILED)
FIRST_LOOK = 0.05  # seconds between the first two looks of an element that settles; doubled each time


class Sent(TypedDict):
    """What is written down when an engine has been given an element."""

    attempt: int
    job: str
    engine: str
    driver: Described


@dataclass(slots=True)
class Shared:
    """What a driver's elements have in common."""

    plan: Plan
    engine: Engine
    say: Callable[[str], None]
    hints: dict[str, bool] = field(default_factory=dict)  # job → whether the engine has it
    full: str | None = None  # why nothing more is submitted

    @property
    def failures(self) -> Path:
        return self.plan.state / "failures"

    def outlives(self, sent: dict[str, Any]) -> bool:
        """Whether a job of which the engine says nothing may still be waiting."""
        return self.engine.outlives and sent["engine"] == self.engine.name


class ElementState:
    """An element, and what this driver remembers of it."""

    def __init__(self, element: Element, shared: Shared):
        self.element, self.shared = element, shared
        self.state = UNKNOWN
        self.failures: list[Failure] = []
        self._since: float | None = None  # when it began to settle
        self._next_look = 0.0

    @property
    def history(self) -> History:
        return History(self.failures)

    @property
    def weight(self) -> int:
        """Workers' places that it takes on this machine: one that ran out of memory gets a neighbour's too."""
        return min(self.history.memory, self.shared.engine.width or 1)

    def look(self) -> dict[str, str]:
        """What is missing of it; it is done if nothing is."""
        missing = done.missing(self.shared.plan.out, self.element)
        if not missing:
            if self.state != UNKNOWN:
                self.shared.say(f"{self.element.source.given}: {self._what()}done")
            self.state = DONE
        return missing

    def forget(self) -> None:
        """Nobody needs what it left any more: it is a shard, and the record made of it is there."""
        assert self.element.shard
        self.state = DONE
        shutil.rmtree(self.element.folder(self.shared.plan.out), ignore_errors=True)

    def advance(self) -> None:
        """Bring `state` up to what the disk says."""
        shared, held, sent = self.shared, self._held(), self.sent()
        if held and (held.lives if held.lives is not None else shared.hints.get(held.facts["job"], False)):
            self.state, self._since = RUNNING, None
            return
        tried = held.facts["attempt"] if held else 0
        waits = sent and sent["attempt"] > max(tried, self.history.attempts)
        if waits and shared.hints.get(sent["job"], shared.outlives(sent)):
            self.state, self._since = QUEUED, None
            return
        if waits and not shared.outlives(sent) and sent["driver"] != process.me():
            waits = False  # it waited in a driver that is dead, and never began
        if not waits and (not held or tried <= self.history.attempts):
            self._decide()
        else:
            self._settle(held.facts if held and not waits else sent)

    def stopped(self) -> None:
        """The user wants no more: what was running here is no failed attempt."""
        held = self._held()
        if held and not held.ended and process.alive(held.facts["process"]) is False:
            self._fail("stopped", "the sweep was interrupted", held.facts)

    def submitted(self, attempt: int, job: str) -> None:
        """The engine has it."""
        facts = {"attempt": attempt, "job": job, "engine": self.shared.engine.name, "driver": process.me()}
        records.write_json(self.shared.plan.state / "submitted" / f"{self.element.id}.json", facts)
        self.shared.hints[job] = True
        self.state = QUEUED

    def sent(self) -> dict[str, Any] | None:
        """To which engine it was given last, by whichever driver."""
        path = self.shared.plan.state / "submitted" / f"{self.element.id}.json"
        try:
            facts = records.read_json(path)
            shapes.require(shapes.shape(__name__, "Sent"), facts, str(path))
        except InputError:
            return None
        return facts

    def _held(self) -> lease.Held | None:
        held = lease.read(self.shared.plan.state / "leases" / f"{self.element.id}.json")
        return held if held and {"attempt", "job", "engine"} <= held.facts.keys() else None

    def _settle(self, facts: dict[str, Any]) -> None:
        """Its worker is gone: look for its records until patience is over, then count an attempt."""
        now = time.monotonic()
        if self.state != SETTLING:
            self.state, self._since, self._next_look = SETTLING, now, now
        if now < self._next_look:
            return
        reported = self._reported(facts["attempt"])
        missing = self.look()
        if not missing:
            return
        if reported:
            self._decide()
        elif now - self._since > self.shared.engine.patience:
            ended = "ended" in facts
            gone = "the worker ended" if ended else "the worker is gone"
            kind = self.shared.engine.cause(facts["job"]) or ("killed" if "process" in facts and not ended else "lost")
            first, why = next(iter(missing.items()))
            self._fail(kind, f"{gone}, and {first} is missing: {why}{self._printed(facts)}", facts)
            self._decide()
        else:
            self._next_look = now + max(FIRST_LOOK, now - self._since)

    def _printed(self, facts: dict[str, Any]) -> str:
        """Where it said more than that it is gone."""
        log = log_of(self.shared.plan.out, self.element.id, facts["attempt"])
        logs = [path for path in (log, self.shared.engine.log(facts["job"])) if path is not None and path.is_file()]
        return next((f"; see {path}" for path in logs if path.stat().st_size), "")

    def _reported(self, attempt: int) -> bool:
        """Whether the worker said itself what went wrong."""
        known = [f for f in failures.read_of(self.shared.failures, self.element.id) if f not in self.failures]
        self.failures += known
        for failure in known:
            self._tell(failure)
            if failure.kind == "disk":
                self.shared.full = failure.message
        return any(failure.attempt == attempt for failure in self.failures)

    def _fail(self, kind: str, message: str, facts: dict[str, Any]) -> None:
        missing = done.missing(self.shared.plan.out, self.element)
        failure = Failure(
            element=self.element.id,
            attempt=facts["attempt"],
            kind=kind,
            message=message,
            tasks=tuple(self.element.tasks[name].id for name in missing),
            engine=facts["engine"],
            job=facts["job"],
        )
        try:
            failures.write(self.shared.failures, failure)
        except records.CannotWrite as error:  # then it does not count either
            self.shared.full = str(error)
            return
        self.failures.append(failure)
        self._tell(failure)

    def _tell(self, failure: Failure) -> None:
        attempt = f"{self._what()}attempt {failure.attempt} failed ({failure.kind})"
        self.shared.say(f"{self.element.source.given}: {attempt}: {failure.message}")

    def _what(self) -> str:
        """Of a shard, which: "head_grams of layers 0 to 3, "."""
        shard = self.element.shard
        return f"{shard.analysis} of layers {shard.start} to {shard.stop - 1}, " if shard else ""

    def _decide(self) -> None:
        """It is not done and nobody works on it: is it worth another attempt?"""
        missing = self.look()
        if not missing:
            return
        ids = [self.element.tasks[name].id for name in missing]
        ended = all(self.history.given_up(id) for id in ids)
        self.state, self._since = FAILED if ended else WAITING, None
