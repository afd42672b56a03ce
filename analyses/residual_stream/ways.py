"""The three ways in which every statistic of the stream is taken: which tokens count.

Most quarrels about the stream are about a few tokens: the first of each prompt, and those whose state is many times as
long as the others'. So each number is given for all tokens, without the first token of each prompt, and without the
massive ones. A token is massive in a layer where its state is more than MASSIVE times as long as the median state.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

Found = TypeVar("Found")

WAYS = ("all", "without_first", "without_massive")
MASSIVE = 10.0  # times the layer's median norm


def named(name: str, way: str) -> str:
    """A metric's name: with all tokens its own, else with the way behind it."""
    return name if way == "all" else f"{name}_{way}"


def way_of(name: str) -> str:
    """The way that a metric of this name is taken in.

    >>> way_of("norm_growth_without_first"), way_of("linear_r2")
    ('without_first', 'all')
    """
    return next((way for way in WAYS[1:] if name.endswith(f"_{way}")), "all")


def asked_in(way: str, asked: frozenset[str] | None) -> frozenset[str] | None:
    """Of these names of metrics those in one way, by the name that they have with all tokens; None for all."""
    return None if asked is None else frozenset(n.removesuffix(f"_{way}") for n in asked if way_of(n) == way)


def massive(norms: torch.Tensor) -> torch.Tensor:
    """(token,) bool: which of these (token,) norms are MASSIVE times the median; none where the median is zero.

    >>> massive(torch.tensor([1.0, 1.0, 11.0, 9.0, 1.0])).tolist()
    [False, False, True, False, False]
    """
    middle = median(norms)
    return norms > MASSIVE * middle if float(middle) > 0 else torch.zeros_like(norms, dtype=torch.bool)


def median(values: torch.Tensor) -> torch.Tensor:
    """Median over the last axis, of an even number of values the mean of the middle two."""
    n = values.shape[-1]
    low, high = (values.kthvalue(k + 1).values for k in ((n - 1) // 2, n // 2))
    return (low + high) / 2


def masks(first: torch.Tensor, large: torch.Tensor) -> dict[str, torch.Tensor]:
    """Way → (token,) bool, from which tokens are first in their prompt and which are massive."""
    return {"all": torch.ones_like(first), "without_first": ~first, "without_massive": ~large}


def by_mask(kept: Mapping[str, torch.Tensor], statistic: Callable[[str, torch.Tensor], Found]) -> dict[str, Found]:
    """Way → statistic(way, mask), made once for ways in which the same tokens count."""
    found: dict[str, Found] = {}
    for way, mask in kept.items():
        twin = next((other for other in found if torch.equal(kept[other], mask)), None)
        found[way] = statistic(way, mask) if twin is None else found[twin]
    return found
