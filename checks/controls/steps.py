"""Progress over all controls of a model as one count, although some stages end early.

A step is one measurement of a twin, of the model with other settings, or of a planted track. How many there are at most
is known beforehand; a stage that has seen enough jumps to its end.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from analyses.progress import Tick, silent


class Steps:
    """Steps done of all, told to `tick`."""

    def __init__(self, stages: Sequence[int] = (), tick: Tick = silent):
        """`stages`: the most steps of each stage, in the order in which they are entered."""
        self.tick, self.of = tick, sum(stages)
        self.done, self.end, self.left = 0, 0, list(stages)

    @contextmanager
    def stage(self) -> Iterator[None]:
        """The next stage; at its end its steps are done, however many were taken."""
        self.end = self.done + (self.left.pop(0) if self.left else 0)
        yield
        if self.done < self.end:
            self.done = self.end
            self.tick(self.done, self.of)

    def step(self) -> None:
        """One more, up to the end of the stage."""
        if self.done < self.end:
            self.done += 1
            self.tick(self.done, self.of)
