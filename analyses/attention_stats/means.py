"""Entropy and logit spread of every query, and their means over all queries, per head.

A block of heads and queries is reduced over its keys in float64, in work space that the next block
overwrites; of each query remain the handful of numbers in `Queries`. Key 0 is kept out of all sums
over keys and joined afterwards: taking it out of finished sums would leave nothing but rounding
where it holds nearly all of the probability.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from analyses.attention_stats.shown import Shown

STATISTICS = (
    "entropy",
    "entropy_fraction",
    "logit_std",
    "sink_share",
    "sink_share_early",
    "entropy_without_sink",
    "logit_std_without_sink",
)
EARLY = 64  # queries of a prompt, as the published measure of sinks takes; shorter prompts have no such number


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadMeans:
    """Means over the queries of all sequences, (head,) float64; NaN where no query qualifies."""

    entropy: torch.Tensor  # nats, over all queries
    entropy_fraction: torch.Tensor  # of ln(visible keys), over queries with at least two
    logit_std: torch.Tensor  # population form over visible keys, over queries with at least two
    sink_share: torch.Tensor  # probability on key 0, over queries other than the first
    sink_share_early: torch.Tensor  # probability on key 0, over the first EARLY queries of prompts that have as many
    entropy_without_sink: torch.Tensor  # key 0 left out and the rest renormalised, where two or more remain
    logit_std_without_sink: torch.Tensor  # key 0 left out, where two or more remain
    logit_std_left_out: torch.Tensor  # (group, head) `logit_std` with each group of prompts left out
    entropy_excess: float  # worst of entropy − ln(visible keys) and −entropy over queries and heads, nats
    row_sum_error: float  # worst |Σ visible probabilities − 1|, of the model's own where it shows them
    queries: int  # over all sequences


class Sums(NamedTuple):
    """Of each query, (sequence, head, query) or (head, query) float64, over its visible keys other than key 0.

    Of a logit d is the difference from the largest, and e its exponential. A query without such a key has anything.
    """

    largest: torch.Tensor  # logit
    rest: torch.Tensor  # Σ e, the largest left out
    weighted: torch.Tensor  # Σ e·d
    total: torch.Tensor  # Σ d
    size: torch.Tensor  # √Σ d²
    mass: torch.Tensor  # Σ of the model's own probabilities; in the end with that of key 0, and anything if not shown


class Queries(NamedTuple):
    """Of each query, (head, query) float64; all over its visible keys other than key 0, but for the last three."""

    keys: torch.Tensor  # how many
    entropy: torch.Tensor  # nats, 0 where there is no key
    log_mass: torch.Tensor  # ln Σ exp(logit), −inf where there is no key
    mean: torch.Tensor  # of the logits
    square: torch.Tensor  # Σ (logit − mean)²
    zeroth: torch.Tensor  # the logit of key 0
    sees_zeroth: torch.Tensor  # 0 or 1
    model_mass: torch.Tensor  # Σ of the model's own probabilities over visible keys, key 0 too; arbitrary if not shown


class Space:
    """Memory that is used again: made anew for every block, it costs more time than what is computed in it.

    With it goes what the last masks show, which the next layer is given again.
    """

    MASKS = 2  # of layers that see all keys and of layers with a window

    def __init__(self) -> None:
        self.kept: dict[str, torch.Tensor] = {}
        self.masks: list[tuple[weakref.ref[torch.Tensor], int, Shown]] = []  # a mask, its version, what it shows

    def __call__(self, use: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An array with anything in it, in place of the last one of the same use."""
        entries, kept = math.prod(shape), self.kept.get(use)
        if kept is None or len(kept) < entries or kept.dtype != dtype or kept.device != device:
            kept = self.kept[use] = torch.empty(entries, dtype=dtype, device=device)
        return kept[:entries].view(shape)

    def of_mask(self, mask: torch.Tensor, make: Callable[[], Shown]) -> Shown:
        """What this very mask was found to show, or is found to show now."""
        for known, version, shown in self.masks:
            if known() is mask and version == mask._version:
                return shown
        shown = make()
        self.masks = [(weakref.ref(mask), mask._version, shown), *self.masks][: self.MASKS]
        return shown


def over_keys(logits: torch.Tensor, near: slice, added: torch.Tensor, space: Space, *, out: Sums) -> None:
    """All fields of `Sums` but the mass, of a block.

    Every key is measured from the largest, whose own exp(0) is left out of the sum, so that ln(1 + rest)
    is exact however small the rest is; then entropy = ln(1 + rest) + Σ e·(−d)/(1 + rest) adds up numbers
    of one sign. The largest key is at 0 and in the sum, so that mean² ≤ square and Σd² − n·mean² loses at
    most a factor n.

    Parameters
    ----------
    logits : (sequence, head, query, key) float64 in front of the mask, overwritten.
    near, added : keys that the mask hides or changes, and what it adds there, −∞ where it hides (`shown.Part`).
    """
    logits[..., near] += added
    largest, where = logits.max(-1, keepdim=True)
    largest.clamp_min_(torch.finfo(torch.float64).min)  # −∞ − (−∞) has no value
    d = logits.sub_(largest)
    e = torch.exp(d, out=space("exponentials", d.shape, d.dtype, d.device)).scatter_(-1, where, 0)
    torch.sum(e, -1, out=out.rest)
    d[..., near].nan_to_num_(nan=math.nan, posinf=math.inf, neginf=0)
    torch.sum(e.mul_(d), -1, out=out.weighted)
    torch.sum(d, -1, out=out.total)
    torch.linalg.vector_norm(d, dim=-1, out=out.size)
    out.largest.copy_(largest.squeeze(-1))


def queries_of(sums: Sums, *, keys: torch.Tensor, zeroth: torch.Tensor, sees_zeroth: torch.Tensor) -> Queries:
    """What is known of queries from their sums; `keys` is the number of visible keys other than key 0."""
    some = keys > 0
    entropy = torch.where(some, sums.rest.log1p() - sums.weighted / (1 + sums.rest), 0)
    mean = sums.total / keys.clamp_min(1)
    return Queries(
        keys=keys,
        entropy=entropy,
        log_mass=torch.where(some, sums.largest + sums.rest.log1p(), -math.inf),
        mean=torch.where(some, sums.largest + mean, 0),
        square=torch.where(some, (sums.size.square() - sums.total * mean).clamp_min(0), 0),
        zeroth=zeroth,
        sees_zeroth=sees_zeroth,
        model_mass=sums.mass,
    )


def means(
    of: Queries,
    position: torch.Tensor,
    *,
    groups: Sequence[slice] = (),
    shows_weights: bool,
    early: torch.Tensor,
    sinks: torch.Tensor | None = None,
) -> HeadMeans:
    """Means over queries and the worst of them.

    Parameters
    ----------
    of : all queries of all sequences. position : (query,) number of each in its sequence.
    groups : runs of queries, each left out once.
    shows_weights : whether the model showed its own probabilities.
    early : (query,) bool, among the first EARLY of a prompt that has as many.
    sinks : (head, 1) logits that take part in the softmax and are no keys.

    Raises
    ------
    ValueError if a query sees no key.
    """
    sees_zeroth = of.sees_zeroth > 0
    keys = of.keys + of.sees_zeroth
    if not (keys > 0).all():
        raise ValueError("a query sees no key: the attention mask was not read as the model reads it")
    # Of the probability on all keys, −ln of key 0's part and of the others'.
    odds = torch.where(sees_zeroth, of.log_mass - of.zeroth, math.inf)
    zero = torch.zeros_like(odds)
    less_zeroth, less_others = torch.logaddexp(zero, odds), torch.logaddexp(zero, -odds)
    p_zeroth, p_others = (-less_zeroth).exp(), (-less_others).exp()
    entropy = torch.where(p_zeroth > 0, p_zeroth * less_zeroth, 0)
    entropy += torch.where(p_others > 0, p_others * (less_others + of.entropy), 0)
    apart = of.keys / (of.keys + 1) * (of.zeroth - of.mean).square()
    square = of.square + torch.where(sees_zeroth & (of.keys > 0), apart, 0)
    bound = keys.log()
    total = of.model_mass if shows_weights else p_zeroth + p_others
    if sinks is not None and shows_weights:  # what the sinks leave
        log_mass = torch.where(sees_zeroth, torch.logaddexp(of.log_mass, of.zeroth), of.log_mass)
        total = total / torch.sigmoid(log_mass - sinks)

    def mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        where = where.expand_as(values)
        return (torch.where(where, values, 0).sum(-1) / where.sum(-1)).cpu()

    spread, counted = (square / keys).sqrt(), (keys >= 2).expand_as(square)

    def left_out() -> torch.Tensor:
        """(group, head) means over all groups but one."""
        inside = torch.where(counted, spread, 0)
        sums = torch.stack([inside[:, part].sum(1) for part in groups])
        numbers = torch.stack([counted[:, part].sum(1) for part in groups])
        others = 1 - torch.eye(len(groups), dtype=sums.dtype, device=sums.device)
        return (others @ sums / (others @ numbers.double())).cpu()

    return HeadMeans(
        entropy=mean(entropy, keys > 0),
        entropy_fraction=mean(entropy / bound.clamp_min(math.log(2)), keys >= 2),
        logit_std=mean(spread, counted),
        sink_share=mean(p_zeroth, position > 0),
        sink_share_early=mean(p_zeroth, early),
        entropy_without_sink=mean(of.entropy, of.keys >= 2),
        logit_std_without_sink=mean((of.square / of.keys.clamp_min(1)).sqrt(), of.keys >= 2),
        logit_std_left_out=left_out() if groups else torch.empty(0, len(entropy), dtype=torch.float64),
        entropy_excess=float(torch.maximum(entropy - bound, -entropy).max()),
        row_sum_error=float((total - 1).abs().max()),
        queries=len(position),
    )
