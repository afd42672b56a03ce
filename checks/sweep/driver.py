"""The driver's loop: what is missing is given to the engine, waited for, and looked at again.

Where an element stands is read off the disk (`element`), so a driver that was killed and started again knows what its
predecessor knew. What a running one remembers beside that is only since when it has been waiting for a record to
appear.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from checks.sweep import done, failures
from checks.sweep.disk import lacking
from checks.sweep.element import DONE, FIRST_LOOK, OVER, QUEUED, RUNNING, SETTLING, WAITING, ElementState, Shared
from checks.sweep.engine import Busy, Engine, Job
from checks.sweep.plan import Plan

REPORT = 60.0  # seconds between two reports
LISTING = 30.0  # seconds between two questions to an engine that others ask too


class Driver:
    """Brings a plan to its end, as far as it can be brought."""

    def __init__(self, plan: Plan, engine: Engine, say: Callable[[str], None]):
        self.shared = Shared(plan, engine, say)
        self.elements = {element.id: ElementState(element, self.shared) for element in plan.elements}
        self._asked = self._not_before = float("-inf")

    @property
    def full(self) -> str | None:
        """Why nothing more is submitted, if so."""
        return self.shared.full

    def done(self) -> list[str]:
        """Ids of the elements that are done."""
        return [id for id, one in self.elements.items() if one.state == DONE]

    def look(self) -> None:
        """See what is there already; raises InputError for records of another schema version."""
        for one in self.elements.values():
            done.require_our_schema(self.shared.plan.out, one.element)
        for failure in failures.read(self.shared.failures):
            if failure.element in self.elements:
                self.elements[failure.element].failures.append(failure)
        for one in self.elements.values():
            one.look()
        self._forget_shards()

    def run(self, report: Callable[[], None] = lambda: None) -> None:
        """Until every element is done or given up, or nothing more can be started; reports now and then."""
        pause, reported = FIRST_LOOK, time.monotonic()
        while open := [w for w in self.elements.values() if w.state not in OVER]:
            before = [w.state for w in open]
            self._ask(open)
            for one in open:
                if one.state != WAITING:  # what waits for this driver changes by this driver alone
                    one.advance()
            self._submit(open)
            if self.full and not any(w.state in (QUEUED, RUNNING, SETTLING) for w in open):
                break
            if time.monotonic() - reported > REPORT:
                report()
                reported = time.monotonic()
            pause = FIRST_LOOK if before != [w.state for w in open] else min(2 * pause, self.shared.engine.pause)
            time.sleep(pause)
        self._forget_shards()

    def stopped(self) -> None:
        """The user wants no more: what was running here is no failed attempt."""
        for one in self.elements.values():
            one.stopped()

    def _forget_shards(self) -> None:
        """Those of a checkpoint that is done."""
        for one in self.elements.values():
            for id in one.element.after if one.state == DONE else ():
                self.elements[id].forget()

    # --- to the engine ----------------------------------------------------------------------------------------

    def _ask(self, open: Sequence[ElementState]) -> None:
        """Ask the engine which jobs it has, now and then."""
        engine = self.shared.engine
        if engine.outlives and time.monotonic() - self._asked < min(LISTING, 10 * engine.pause):
            return
        self._asked = time.monotonic()
        sent = [w.sent() for w in open]
        self.shared.hints = engine.alive([s["job"] for s in sent if s and s["engine"] == engine.name])

    def _submit(self, open: Sequence[ElementState]) -> None:
        chosen = list(self._chosen(open))
        if not chosen or time.monotonic() < self._not_before:
            return
        self.shared.full = self.full or lacking(self.shared.plan.out, 0, "a sweep")
        if self.full:
            return
        jobs = []
        for one in chosen:
            history = one.history
            attempt = history.attempts + 1
            jobs.append(Job(element=one.element.id, attempt=attempt, memory=history.memory, time=history.time))
        try:
            names = self.shared.engine.submit(jobs)
        except Busy as busy:
            self.shared.say(f"{self.shared.engine.name}: {busy}; asking again")
            self._not_before = time.monotonic() + LISTING
            return
        # A driver that dies right here starts these again. That costs a job each that finds nothing to do.
        for one, job, name in zip(chosen, jobs, names, strict=True):
            one.submitted(job.attempt, name)

    def _chosen(self, open: Sequence[ElementState]) -> Iterator[ElementState]:
        """Elements to be submitted now: all that wait, or as many as the engine has room for."""
        width = self.shared.engine.width
        busy = sum(w.weight for w in open if w.state in (QUEUED, RUNNING))
        for one in open:
            if one.state != WAITING or any(self.elements[id].state not in OVER for id in one.element.after):
                continue
            if width is not None and busy and busy + one.weight > width:
                return
            busy += one.weight
            yield one
