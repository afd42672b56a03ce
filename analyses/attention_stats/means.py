"""Entropy and logit spread of every query, and their means over all queries, per head.

A block of heads and queries is reduced over its keys in float64, in work space that the next block
overwrites; of each query remain the handful of numbers in `Queries`. Key 0 is kept out of all sums
over keys and joined afterwards: taking it out of finished sums would leave nothing but rounding
where it holds nearly all of the probability.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

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


class Queries(NamedTuple):
    """Of each query, (head, query) float64; all over its visible keys other than key 0, but for the last three.

    Of some sequences before they are joined, (sequence, head, query).
    """

    keys: torch.Tensor  # how many
    entropy: torch.Tensor  # nats, 0 where there is no key
    log_mass: torch.Tensor  # ln Σ exp(logit), −inf where there is no key
    mean: torch.Tensor  # of the logits
    square: torch.Tensor  # Σ (logit − mean)²
    zeroth: torch.Tensor  # the logit of key 0
    sees_zeroth: torch.Tensor  # 0 or 1
    model_mass: torch.Tensor  # Σ of the model's own probabilities over visible keys, key 0 too; arbitrary if not shown


class Space:
    """Memory that is used again: made anew for every block, it costs more time than what is computed in it."""

    def __init__(self) -> None:
        self.kept: dict[str, torch.Tensor] = {}

    def __call__(self, use: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An array with anything in it, in place of the last one of the same use."""
        entries, kept = math.prod(shape), self.kept.get(use)
        if kept is None or len(kept) < entries or kept.dtype != dtype or kept.device != device:
            kept = self.kept[use] = torch.empty(entries, dtype=dtype, device=device)
        return kept[:entries].view(shape)


def span(true: torch.Tensor) -> slice:
    """From the first true entry to the last; the first entry alone if none is true.

    >>> span(torch.tensor([False, True, False, True, False]))
    slice(1, 4, None)
    """
    (where,) = true.nonzero(as_tuple=True)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 1)


class Hidden(NamedTuple):
    """The pairs of a query and a key that a mask hides, the keys among which they lie, and how many are left."""

    pairs: torch.Tensor  # (sequence, 1 or head, query, key) bool
    keys: slice
    left: torch.Tensor  # (sequence, 1 or head, query) float64 keys that each query sees

    @classmethod
    def of(cls, visible: torch.Tensor) -> "Hidden":
        pairs = ~visible
        # As whole numbers they would divide into float32.
        return cls(pairs, span(pairs.flatten(0, 2).any(0)), visible.sum(-1).double())

    def to(self, heads: slice) -> "Hidden":
        every_head = self.pairs.shape[1] == 1
        return self if every_head else Hidden(self.pairs[:, heads], self.keys, self.left[:, heads])

    def fill(self, values: torch.Tensor, value: float) -> torch.Tensor:
        """Write `value` over the hidden pairs of a (sequence, head, query, key) array.

        A causal mask hides few of a block's.
        """
        values[..., self.keys].masked_fill_(self.pairs[..., self.keys], value)
        return values


def over_keys(logits: torch.Tensor, hidden: Hidden, space: Space) -> tuple[torch.Tensor, ...]:
    """The first five fields of `Queries`; that of keys (sequence, 1 or head, query).

    Every key is measured from the largest, whose own exp(0) is left out of the sum, so that ln(1 + rest)
    is exact however small the rest is; then entropy = ln(1 + rest) + Σ e·(−d)/(1 + rest) adds up numbers
    of one sign. The largest key is at 0 and in the sum, so that mean² ≤ square and Σd² − n·mean² loses at
    most a factor n.

    Parameters
    ----------
    logits : (sequence, head, query, key) float64, overwritten.
    """
    n = hidden.left
    largest, where = hidden.fill(logits, -math.inf).max(-1, keepdim=True)
    largest.masked_fill_(largest == -math.inf, 0)
    d = logits.sub_(largest)
    e = torch.exp(d, out=space("exponentials", d.shape, d.dtype, d.device)).scatter_(-1, where, 0)
    rest = e.sum(-1)
    hidden.fill(d, 0)
    entropy = rest.log1p() - e.mul_(d).sum(-1) / (1 + rest)
    total = d.sum(-1)
    mean = total / n.clamp_min(1)
    square = (torch.linalg.vector_norm(d, dim=-1).square_() - total * mean).clamp_min_(0)
    largest = largest.squeeze(-1)
    return n, entropy, torch.where(n > 0, largest + rest.log1p(), -math.inf), largest + mean, square


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

    def mean_without(part: slice) -> torch.Tensor:
        kept = counted.clone()
        kept[:, part] = False
        return mean(spread, kept)

    left_out = [mean_without(part) for part in groups]
    return HeadMeans(
        entropy=mean(entropy, keys > 0),
        entropy_fraction=mean(entropy / bound.clamp_min(math.log(2)), keys >= 2),
        logit_std=mean(spread, counted),
        sink_share=mean(p_zeroth, position > 0),
        sink_share_early=mean(p_zeroth, early),
        entropy_without_sink=mean(of.entropy, of.keys >= 2),
        logit_std_without_sink=mean((of.square / of.keys.clamp_min(1)).sqrt(), of.keys >= 2),
        logit_std_left_out=torch.stack(left_out) if left_out else torch.empty(0, len(entropy), dtype=torch.float64),
        entropy_excess=float(torch.maximum(entropy - bound, -entropy).max()),
        row_sum_error=float((total - 1).abs().max()),
        queries=len(position),
    )
