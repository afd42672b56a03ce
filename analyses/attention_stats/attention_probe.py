"""Attention entropy and logit spread of one layer's heads, taken during the forward pass.

Entropy and logit spread are computed again from the queries and keys that the model used, in
float64: the model's own probabilities are rounded to its dtype and underflow to zero, and a fused
attention function never shows them. Visible keys are those that the model's own mask lets through,
so that sliding windows count as they are. The probe works on a block of heads and queries of one
sequence, or of several short ones of similar length, at a time; of each query a handful of numbers remains
(`means`), never a (token × token) array.

Cost for each pair of a query and a key from the first to the last that any query of its block sees:
head_dim multiply-adds in float32, one exp and some ten plain passes in float64, 20 bytes of a work
space that all blocks and layers share.
"""

from dataclasses import replace

import torch

from analyses.attention_stats.means import EARLY, HeadMeans, Space, Sums, means, over_keys, queries_of
from analyses.attention_stats.shown import Part, Shown
from analyses.errors import InputError
from analyses.forward.probe import AttentionInputs, Probe, Seen
from analyses.numerics.prompt_groups import groups

BLOCK_ENTRIES = 1 << 18  # logits held at a time, 2 MiB as float64; a single head may exceed it
QUERIES = 48  # worked on at a time, with the keys that they see: half of all pairs are hidden under a causal mask
TOGETHER = 1 << 20  # logits of several sequences at a time, all queries with all keys
ON_DEVICE = 4  # times as many queries, and times that again as many logits, where a call costs more than its arithmetic


class AttentionProbe(Probe):
    """Collects `HeadMeans` layer by layer."""

    witnesses = True

    def __init__(self) -> None:
        self.layers: dict[int, HeadMeans] = {}
        self.seen: dict[int, Seen] = {}
        self.narrow = False  # whether a softmax ran in float32 within a float64 pass

    @property
    def holds_against_own(self) -> bool:
        """Whether the model's own probabilities are summed, which an identity needs and no metric does."""
        return self.asked is None

    def begin(self, real: torch.Tensor) -> None:
        self.real = real
        self.space = Space()

    def attention(self, layer: int, inputs: AttentionInputs) -> None:
        for name, states in (("queries", inputs.query), ("keys", inputs.key)):
            by_token = states.transpose(1, 2)  # as it lies in memory
            # A NaN anywhere is both the least and the greatest number; padding may hold one, and is looked at last.
            if not torch.stack(by_token.aminmax()).isfinite().all():
                if not by_token[self.real.to(states.device)].isfinite().all():
                    raise InputError(f"layer {layer}: {name} are not finite; use a wider --dtype")
        own = inputs if self.holds_against_own else replace(inputs, weights=None)
        self.layers[layer] = head_means(own, self.real, space=self.space)
        if inputs.weights is not None and inputs.weights.dtype == torch.float64:
            some = inputs.weights[0, 0]
            self.narrow |= bool(torch.equal(some.float().double(), some) and ((some > 0) & (some < 1)).any())

    def witnessed(self, layer: int, seen: Seen) -> None:
        self.seen[layer] = seen

    def final(self, before: torch.Tensor, after: torch.Tensor) -> None:
        self.space = Space()  # the probe is kept, its work space need not be


def head_means(
    inputs: AttentionInputs,
    real: torch.Tensor,
    *,
    block_entries: int | None = None,
    space: Space | None = None,
) -> HeadMeans:
    """Attention statistics of one layer.

    Logits are scaling·q·k, capped where the model caps, plus the bias of positions and the mask's finite part; a key is
    visible where the mask says so, or lies above half of its dtype's most negative number. The product is taken
    in float32 or wider, everything after it in float64. Learned sinks take up probability: statistics are of what
    they leave, at a sum of 1. Entropy is exact also where probabilities
    underflow (`means`).

    Parameters
    ----------
    inputs : what the layer's attention function received.
    real : (sequence, token) bool, False on the padding at a sequence's end.
    block_entries : logits to hold at a time; None: BLOCK_ENTRIES, on a device more.
    space : the work space of earlier layers.

    Raises
    ------
    ValueError if a query sees no key, or sees padding.
    """
    device = torch.device("cpu") if inputs.query.device.type == "mps" else inputs.query.device  # mps has no float64
    more = 1 if device.type == "cpu" else ON_DEVICE
    block_entries, space, real = block_entries or BLOCK_ENTRIES * more**2, space or Space(), real.to(device)
    heads, group = inputs.query.shape[1], inputs.query.shape[1] // inputs.key.shape[1]
    queries, most = QUERIES * more, TOGETHER // heads
    shown = space.of_mask(inputs.mask, lambda: Shown(inputs.mask, real, queries=queries, most=most))
    wide = torch.promote_types(inputs.query.dtype, torch.float32)
    query, key = (shown.in_order(states).to(device, wide) for states in (inputs.query, inputs.key))
    if not real.all():  # padding may hold anything, and hidden pairs are to be finite
        key = key.masked_fill(~shown.in_order(real)[:, None, :, None], 0)
    if group > 1:
        key = key.repeat_interleave(group, 1)
    rows = torch.empty(len(Sums._fields), heads, *real.shape, dtype=torch.float64, device=device)
    every = rows.transpose(1, 2)  # (field, sequence, head, token)
    for part in shown.parts():
        sequences, queries, keys = part.sequences, part.queries, part.keys
        entries = len(part.added) * part.added.shape[2] * (keys.stop - keys.start)
        for some in _blocks(heads, block_entries // entries):
            sums = Sums(*every[:, sequences, some, queries].unbind())
            if inputs.weights is not None:
                _model_mass(inputs.weights, part, some, space, out=sums.mass)
            bias = None if inputs.bias is None else inputs.bias[:, some, :, keys][part.which]
            logits = _logits(inputs, query[sequences, some, queries], key[sequences, some, keys], bias, space)
            over_keys(logits, part.near, part.of(some), space, out=sums)
    bias = None if inputs.bias is None else shown.in_order(inputs.bias[..., :1])
    first = _logits(inputs, query, key[:, :, :1], bias, space).squeeze(-1) + shown.added_to_zeroth
    sees, left = shown.sees_zeroth.double(), shown.left
    if inputs.weights is not None:
        Sums(*every).mass.add_(shown.in_order(inputs.weights[..., 0]).to(device, torch.float64) * sees)

    def of_text(values: torch.Tensor) -> torch.Tensor:
        """(head, query) of (sequence, 1 or head, token), in the order of the text."""
        return values.transpose(0, 1).flatten(1)[:, shown.places].expand(heads, -1)

    sums = Sums(*rows.flatten(2)[..., shown.places])
    sinks = None if inputs.sinks is None else inputs.sinks.to(device, torch.float64).unsqueeze(-1)
    return means(
        queries_of(sums, keys=of_text(left), zeroth=of_text(first), sees_zeroth=of_text(sees)),
        torch.arange(real.shape[1], device=device).expand_as(real)[real],
        groups=groups(real.sum(1).tolist()).slices,
        shows_weights=inputs.weights is not None,
        early=early_queries(real),
        sinks=sinks,
    )


def early_queries(real: torch.Tensor) -> torch.Tensor:
    """(query,) bool over all real tokens of (sequence, token): the first EARLY of sequences that have as many."""
    inside = (torch.arange(real.shape[1], device=real.device) < EARLY) & (real.sum(1, keepdim=True) >= EARLY)
    return inside[real]


def _blocks(heads: int, most: int) -> list[slice]:
    """So many heads at most, at least one."""
    step = max(most, 1)
    return [slice(first, min(first + step, heads)) for first in range(0, heads, step)]


def _logits(
    inputs: AttentionInputs, query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None, space: Space
) -> torch.Tensor:
    """Logits in front of the mask, (sequence, head, query, key) float64, in the work space.

    Parameters
    ----------
    query, key : (sequence, head, token, head_dim), float32 or wider. bias : of these keys.
    """
    shape = (*query.shape[:3], key.shape[2])
    product = space("product", (shape[0] * shape[1], *shape[2:]), query.dtype, query.device)
    torch.baddbmm(product, query.flatten(0, 1), key.flatten(0, 1).mT, beta=0, alpha=inputs.scaling, out=product)
    logits = product.view(shape)
    if logits.dtype != torch.float64:
        logits = space("logits", shape, torch.float64, query.device).copy_(logits)
    if inputs.softcap is not None:
        logits.div_(inputs.softcap).tanh_().mul_(inputs.softcap)
    return logits if bias is None else logits.add_(bias.to(logits))


def _model_mass(weights: torch.Tensor, part: Part, heads: slice, space: Space, *, out: torch.Tensor) -> None:
    """(sequence, head, query) sums of the model's own probabilities over visible keys other than key 0."""
    others = part.cut(weights, heads)
    wide = space("exponentials", others.shape, torch.float64, out.device).copy_(others)
    wide[..., part.near].masked_fill_(part.of(heads).isneginf(), 0)
    torch.sum(wide, -1, out=out)
