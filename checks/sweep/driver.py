"""The loop: what is missing is given to the engine, waited for, and looked at again.

Where an element stands is read off the disk, so a driver that was killed and started again knows what its
predecessor knew. What a running one remembers beside that is only since when it has been waiting for a
record to appear.

    waiting → queued → running → settling → done, or waiting again, or failed

An element settles when its worker is gone: its records are looked for again and again until the engine's
patience is over, since a shared file system may show them late. Only then has an attempt failed.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from analyses import records
from analyses.errors import InputError
from checks.sweep import done, failures, lease, place
from checks.sweep.engines import Busy, Engine, Job
from checks.sweep.failures import Failure, History
from checks.sweep.plan import Element, Plan
from checks.sweep.room import lacking

UNKNOWN, WAITING, QUEUED, RUNNING, SETTLING, DONE, FAILED = (
    "unknown", "waiting", "queued", "running", "settling", "done", "failed"
)  # fmt: skip
OVER = (DONE, FAILED)
FIRST_LOOK = 0.05  # seconds between the first two looks of an element that settles; doubled each time
REPORT = 60.0  # seconds between two reports
LISTING = 30.0  # seconds between two questions to an engine that others ask too


@dataclass(slots=True)
class Watched:
    """An element, and what this driver remembers of it."""

    element: Element
    state: str = UNKNOWN
    since: float | None = None  # when it began to settle
    next_look: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @property
    def history(self) -> History:
        return History(self.failures)


class Driver:
    """Brings a plan to its end, as far as it can be brought."""

    def __init__(self, plan: Plan, engine: Engine, say: Callable[[str], None]):
        self.plan, self.engine, self.say = plan, engine, say
        self.out, self.files = plan.out, plan.state
        self.watched = {element.id: Watched(element) for element in plan.elements}
        self.full: str | None = None  # why nothing more is submitted
        self.hints: dict[str, bool] = {}
        self.asked = self.not_before = float("-inf")

    def done(self) -> list[str]:
        """Ids of the elements that are done."""
        return [id for id, watched in self.watched.items() if watched.state == DONE]

    def run(self, report: Callable[[], None] = lambda: None) -> None:
        """Until every element is done or given up, or nothing more can be started; reports now and then."""
        pause, reported = FIRST_LOOK, time.monotonic()
        while open := [w for w in self.watched.values() if w.state not in OVER]:
            before = [w.state for w in open]
            self._ask(open)
            for watched in open:
                if watched.state != WAITING:  # what waits for this driver changes by this driver alone
                    self._advance(watched)
            self._submit(open)
            if self.full and not any(w.state in (QUEUED, RUNNING, SETTLING) for w in open):
                break
            if time.monotonic() - reported > REPORT:
                report()
                reported = time.monotonic()
            pause = FIRST_LOOK if before != [w.state for w in open] else min(2 * pause, self.engine.pause)
            time.sleep(pause)

    def stopped(self) -> None:
        """The user wants no more: what was running here is no failed attempt."""
        for watched in self.watched.values():
            held = lease.read(self._lease(watched))
            if held and not held.ended and place.alive(held.facts["process"]) is False:
                self._fail(watched, "stopped", "the sweep was interrupted", held.facts)

    # --- where an element stands ------------------------------------------------------------------------------

    def look(self) -> None:
        """See what is there already; raises InputError for records of another schema version."""
        for watched in self.watched.values():
            done.require_our_schema(self.out, watched.element)
        for failure in failures.read(self.files / "failures"):
            if failure.element in self.watched:
                self.watched[failure.element].failures.append(failure)
        for watched in self.watched.values():
            self._look(watched)
        for watched in self.watched.values():
            if watched.state == DONE:  # then nobody needs its pieces any more
                for id in watched.element.after:
                    self.watched[id].state = DONE

    def _look(self, watched: Watched) -> dict[str, str]:
        missing = done.missing(self.out, watched.element)
        if not missing:
            if watched.state != UNKNOWN:
                self.say(f"{watched.element.source.given}: done")
            watched.state = DONE
        return missing

    def _advance(self, watched: Watched) -> None:
        """Bring `state` up to what the disk says."""
        held = lease.read(self._lease(watched))
        sent = self._sent(watched)
        if held and self._lives(held):
            watched.state, watched.since = RUNNING, None
            return
        tried = held.facts["attempt"] if held else 0
        waits = sent and sent["attempt"] > max(tried, watched.history.attempts)
        if waits and self.hints.get(sent["job"], self._outlives(sent)):
            watched.state, watched.since = QUEUED, None
            return
        if waits and not self._outlives(sent) and sent["driver"] != place.me():
            waits = False  # it waited in a driver that is dead, and never began
        if not waits and (not held or tried <= watched.history.attempts):
            self._decide(watched)
        else:
            self._settle(watched, held.facts if held and not waits else sent)

    def _lives(self, held: lease.Held) -> bool:
        return held.lives if held.lives is not None else self.hints.get(held.facts["job"], False)

    def _outlives(self, sent: dict) -> bool:
        """Whether a job of which the engine says nothing may still be waiting."""
        return self.engine.outlives and sent["engine"] == self.engine.name

    def _settle(self, watched: Watched, facts: dict) -> None:
        """Its worker is gone: look for its records until patience is over, then count an attempt."""
        now = time.monotonic()
        if watched.state != SETTLING:
            watched.state, watched.since, watched.next_look = SETTLING, now, now
        if now < watched.next_look:
            return
        told = self._told(watched, facts["attempt"])
        missing = self._look(watched)
        if not missing:
            return
        if told:
            self._decide(watched)
        elif now - watched.since > self.engine.patience:
            ended = "ended" in facts
            kind = self.engine.cause(facts["job"]) or ("lost" if ended else "killed" if "process" in facts else "lost")
            first, why = next(iter(missing.items()))
            gone = "the worker ended" if ended else "the worker is gone"
            self._fail(watched, kind, f"{gone}, and {first} is missing: {why}", facts)
            self._decide(watched)
        else:
            watched.next_look = now + max(FIRST_LOOK, now - watched.since)

    def _told(self, watched: Watched, attempt: int) -> bool:
        """Whether the worker said itself what went wrong."""
        known = [f for f in failures.read_of(self.files / "failures", watched.element.id) if f not in watched.failures]
        watched.failures += known
        for failure in known:
            self._tell(watched, failure)
            if failure.kind == "disk":
                self.full = failure.message
        return any(failure.attempt == attempt for failure in watched.failures)

    def _fail(self, watched: Watched, kind: str, message: str, facts: dict) -> None:
        ids = tuple(watched.element.tasks[name].id for name in done.missing(self.out, watched.element))
        failure = Failure(
            element=watched.element.id,
            attempt=facts["attempt"],
            kind=kind,
            message=message,
            tasks=ids,
            engine=facts["engine"],
            job=facts["job"],
        )
        try:
            failures.write(self.files / "failures", failure)
        except records.CannotWrite as error:  # then it does not count either
            self.full = str(error)
            return
        watched.failures.append(failure)
        self._tell(watched, failure)

    def _tell(self, watched: Watched, failure: Failure) -> None:
        attempt = f"attempt {failure.attempt} failed ({failure.kind})"
        self.say(f"{watched.element.source.given}: {attempt}: {failure.message}")

    def _decide(self, watched: Watched) -> None:
        """It is not done and nobody works on it: is it worth another attempt?"""
        missing = self._look(watched)
        if not missing:
            return
        ids = [watched.element.tasks[name].id for name in missing]
        ended = all(watched.history.given_up(id) for id in ids)
        watched.state, watched.since = FAILED if ended else WAITING, None

    # --- to the engine ----------------------------------------------------------------------------------------

    def _ask(self, open: list[Watched]) -> None:
        """Ask the engine which jobs it has, now and then."""
        if self.engine.outlives and time.monotonic() - self.asked < min(LISTING, 10 * self.engine.pause):
            return
        self.asked = time.monotonic()
        sent = [self._sent(w) for w in open]
        self.hints = self.engine.alive([s["job"] for s in sent if s and s["engine"] == self.engine.name])

    def _submit(self, open: list[Watched]) -> None:
        chosen = list(self._chosen(open))
        if not chosen or time.monotonic() < self.not_before:
            return
        self.full = self.full or lacking(self.out, 0, "a sweep")
        if self.full:
            return
        jobs = []
        for watched in chosen:
            history = watched.history
            attempt = history.attempts + 1
            jobs.append(Job(element=watched.element.id, attempt=attempt, memory=history.memory, time=history.time))
        try:
            names = self.engine.submit(jobs)
        except Busy as busy:
            self.say(f"{self.engine.name}: {busy}; asking again")
            self.not_before = time.monotonic() + LISTING
            return
        # A driver that dies right here starts these again. That costs a job each that finds nothing to do.
        for job, name in zip(jobs, names, strict=True):
            facts = {"attempt": job.attempt, "job": name, "engine": self.engine.name, "driver": place.me()}
            records.write_json(self.files / "submitted" / f"{job.element}.json", facts)
            self.hints[name] = True
        for watched in chosen:
            watched.state = QUEUED

    def _chosen(self, open: list[Watched]) -> Iterator[Watched]:
        """Elements to be submitted now: all that wait, or as many as the engine has room for."""
        width = self.engine.width
        busy = sum(self._weight(w) for w in open if w.state in (QUEUED, RUNNING))
        for watched in open:
            if watched.state != WAITING or any(self.watched[id].state not in OVER for id in watched.element.after):
                continue
            if width is not None and busy and busy + self._weight(watched) > width:
                return
            busy += self._weight(watched)
            yield watched

    def _weight(self, watched: Watched) -> int:
        """Workers' places that it takes on this machine: one that ran out of memory gets a neighbour's too."""
        return min(watched.history.memory, self.engine.width or 1)

    def _lease(self, watched: Watched):
        return self.files / "leases" / f"{watched.element.id}.json"

    def _sent(self, watched: Watched) -> dict | None:
        try:
            return records.read_json(self.files / "submitted" / f"{watched.element.id}.json")
        except InputError:
            return None
