"""The three ways in which every statistic of the stream is taken: which tokens count.

Most quarrels about the stream are about a few tokens: the first of each prompt, and those whose state is many times as
long as the others'. So each number is given for all tokens, without the first token of each prompt, and without the
massive ones. A token is massive in a layer where its state is more than MASSIVE times as long as the median state.
"""

import torch

WAYS = ("all", "without_first", "without_massive")
MASSIVE = 10.0  # times the layer's median norm


def named(name: str, way: str) -> str:
    """A metric's name: with all tokens its own, else with the way behind it."""
    return name if way == "all" else f"{name}_{way}"


def of_ways(name: str) -> tuple[str, ...]:
    """A metric's names in every way."""
    return tuple(named(name, way) for way in WAYS)


def massive(norms: torch.Tensor) -> torch.Tensor:
    """(token,) bool: which of these (token,) norms are MASSIVE times the median; none where the median is zero.

    >>> massive(torch.tensor([1.0, 1.0, 11.0, 9.0, 1.0])).tolist()
    [False, False, True, False, False]
    """
    return norms > MASSIVE * median(norms) if float(median(norms)) > 0 else torch.zeros_like(norms, dtype=torch.bool)


def median(values: torch.Tensor) -> torch.Tensor:
    """Median over the last axis, of an even number of values the mean of the middle two."""
    ordered = values.sort(-1).values
    n = values.shape[-1]
    return (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2


def masks(first: torch.Tensor, large: torch.Tensor) -> dict[str, torch.Tensor]:
    """Way → (token,) bool, from which tokens are first in their prompt and which are massive."""
    return {"all": torch.ones_like(first), "without_first": ~first, "without_massive": ~large}
