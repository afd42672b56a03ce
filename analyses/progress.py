"""Progress of a computation, reported as steps done of how many."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Tick = Callable[[int, int], None]
"""(steps done, of how many)"""

Item = TypeVar("Item")


def silent(done: int, of: int) -> None:
    """Nobody looks."""


class Count:
    """Steps of several loops as one count."""

    def __init__(self, tick: Tick, of: int):
        self.tick, self.done, self.of = tick, 0, of

    def step(self) -> None:
        self.done += 1
        self.tick(min(self.done, self.of), self.of)

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; each is a step, done when the next is asked for."""
        for item in items:
            yield item
            self.step()
