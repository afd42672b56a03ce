"""Progress over all controls of a model as one count, although some stages end early.

A step is one measurement of a twin, of the model with other settings, or of a planted track. How many there are at most
is known beforehand; a stage that has seen enough jumps to its end. A measurement that runs the text through the model
takes as long as many that do not. It counts for as many, so that what is left of the count tells the time that is left.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from analyses.progress import Tick, silent

PASS = 10  # counts of a measurement with a forward pass; of the reference model's, 6 to 8 s beside 0.4 to 1 s


class Steps:
    """Counts done of all, told to `tick`."""

    def __init__(self, stages: Sequence[int] = (), tick: Tick = silent):
        """`stages`: the most counts of each stage, in the order in which they are entered."""
        self.tick, self.of = tick, sum(stages)
        self.done, self.end, self.left = 0, 0, list(stages)

    @contextmanager
    def stage(self) -> Iterator[None]:
        """The next stage; at its end its steps are done, however many were taken."""
        self.end = self.done + (self.left.pop(0) if self.left else 0)
        yield
        self._to(self.end)

    def step(self, reads_text: bool = False) -> None:
        """One more measurement, up to the end of the stage."""
        self._to(min(self.end, self.done + counts(reads_text)))

    def _to(self, done: int) -> None:
        if done > self.done:
            self.done = done
            self.tick(self.done, self.of)


def counts(reads_text: bool) -> int:
    """Of one measurement."""
    return PASS if reads_text else 1
