"""Attention entropy and logit spread of one layer's heads, taken during the forward pass.

Entropy and logit spread are computed again from the queries and keys that the model used, in
float64: the model's own probabilities are rounded to its dtype and underflow to zero, and a fused
attention function never shows them. Visible keys are those that the model's own mask lets through,
so that sliding windows count as they are. The probe works on a block of heads and queries of one
sequence at a time; of each query a handful of numbers remains (`means`), never a
(token × token) array.

Cost for each pair of a query and a key from the first to the last that any query of its block sees:
head_dim multiply-adds in float32, one exp and some ten plain passes in float64, 20 bytes of a work
space that all blocks and layers share.
"""

from typing import NamedTuple

import torch

from analyses.attention_stats.means import EARLY, HeadMeans, Hidden, Queries, Space, means, over_keys, span
from analyses.errors import InputError
from analyses.forward.probe import AttentionInputs, Probe, Seen
from analyses.numerics.prompt_groups import groups

BLOCK_ENTRIES = 1 << 20  # logits held at a time, 8 MiB as float64; a single head may exceed it
QUERIES = 128  # worked on at a time, with the keys that they see: half of all pairs are hidden under a causal mask


class AttentionProbe(Probe):
    """Collects `HeadMeans` layer by layer."""

    witnesses = True

    def __init__(self) -> None:
        self.layers: dict[int, HeadMeans] = {}
        self.seen: dict[int, Seen] = {}
        self.narrow = False  # whether a softmax ran in float32 within a float64 pass

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
        self.layers[layer] = head_means(inputs, self.real, space=self.space)
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
    block_entries: int = BLOCK_ENTRIES,
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
    block_entries : logits to hold at a time.
    space : the work space of earlier layers.

    Raises
    ------
    ValueError if a query sees no key, or sees padding.
    """
    device = torch.device("cpu") if inputs.query.device.type == "mps" else inputs.query.device  # mps has no float64
    heads, group = inputs.query.shape[1], inputs.query.shape[1] // inputs.key.shape[1]
    space = space or Space()
    position = torch.arange(real.shape[1]).expand_as(real)[real].to(device)  # (query,), over all sequences
    rows = torch.empty(len(Queries._fields), heads, len(position), dtype=torch.float64, device=device)
    done = 0
    for sequence, tokens in enumerate(real.sum(1).tolist()):
        visible, finite = _read(inputs.mask[sequence, :, :tokens].to(device), tokens)
        sees_zeroth = visible[..., :1].clone()  # (1 or head, query, 1)
        visible[..., 0] = False
        for start in range(0, tokens, QUERIES):
            queries = slice(start, min(start + QUERIES, tokens))
            keys = span(visible[:, queries].flatten(0, 1).any(0))
            of_all = Hidden.of(visible[:, queries, keys])
            for some in _blocks(heads, group, block_entries // ((queries.stop - start) * (keys.stop - keys.start))):
                block = _Block(sequence, some, queries, keys)
                zeroth = block._replace(keys=slice(0, 1))
                into = Queries(*rows[:, some, done + start : done + queries.stop])
                into.zeroth.copy_(_logits(inputs, zeroth, finite, space, device).squeeze(-1))
                into.sees_zeroth.copy_(zeroth.of(sees_zeroth).squeeze(-1))
                hidden = of_all.to(some)
                if inputs.weights is not None:
                    into.model_mass.copy_(_model_mass(inputs.weights, block, hidden, into.sees_zeroth, space))
                reduced = over_keys(_logits(inputs, block, finite, space, device), hidden, space)
                for field, values in zip(into, reduced, strict=False):
                    field.copy_(values)
        done += tokens
    early = early_queries(real).to(device)
    parts = groups(real.sum(1).tolist()).slices
    sinks = None if inputs.sinks is None else inputs.sinks.to(device, torch.float64).unsqueeze(-1)
    shows = inputs.weights is not None
    return means(Queries(*rows), position, groups=parts, shows_weights=shows, early=early, sinks=sinks)


def early_queries(real: torch.Tensor) -> torch.Tensor:
    """(query,) bool over all real tokens of (sequence, token): the first EARLY of sequences that have as many."""
    inside = (torch.arange(real.shape[1]) < EARLY) & (real.sum(1, keepdim=True) >= EARLY)
    return inside[real]


class _Block(NamedTuple):
    """Heads, queries and keys of one sequence that are worked on together."""

    sequence: int
    heads: slice
    queries: slice
    keys: slice

    @property
    def index(self) -> tuple:
        return self.sequence, self.heads, self.queries, self.keys

    def of(self, per_pair: torch.Tensor) -> torch.Tensor:
        """The block's entries of a (1 or head, query, key) array."""
        return (per_pair if len(per_pair) == 1 else per_pair[self.heads])[:, self.queries, self.keys]


def _read(mask: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A mask over so many real tokens: (what is visible, what it adds to the logits, if anything)."""
    shown = mask.clone() if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    if shown[..., tokens:].any():
        raise ValueError("a query sees padding: the attention mask was not read as the model reads it")
    shown = shown[..., :tokens]
    if mask.dtype == torch.bool:
        return shown, None
    finite = mask[..., :tokens].masked_fill(~shown, 0)
    return shown, finite if finite.any() else None


def _blocks(heads: int, group: int, most: int) -> list[slice]:
    """So many heads at most, at least one; whole groups of a key head, or equal parts of one group."""
    most = max(most, 1)
    step = most - most % group if most >= group else max(n for n in range(1, most + 1) if group % n == 0)
    return [slice(first, min(first + step, heads)) for first in range(0, heads, step)]


def _logits(
    inputs: AttentionInputs, block: _Block, finite: torch.Tensor | None, space: Space, device: torch.device
) -> torch.Tensor:
    """Logits of one block, (head, query, key) float64, in the work space; `finite` is what the mask adds or None."""
    wide = torch.promote_types(inputs.query.dtype, torch.float32)
    group = inputs.query.shape[1] // inputs.key.shape[1]
    query = inputs.query[block.sequence, block.heads, block.queries].to(device, wide)
    kv_heads = slice(block.heads.start // group, (block.heads.stop - 1) // group + 1)
    key = inputs.key[block.sequence, kv_heads, block.keys].to(device, wide)
    shape = (*query.shape[:2], key.shape[1])
    # A group's queries stand below one another, so that its keys are read once.
    product = space("product", (len(key), query.shape[0] // len(key) * query.shape[1], shape[2]), wide, device)
    grouped = query.reshape(len(key), -1, query.shape[-1])
    torch.baddbmm(product, grouped, key.mT, beta=0, alpha=inputs.scaling, out=product)
    logits = space("logits", shape, torch.float64, device).copy_(product.view(shape))
    if inputs.softcap is not None:
        logits.div_(inputs.softcap).tanh_().mul_(inputs.softcap)
    if inputs.bias is not None:
        logits += inputs.bias[block.sequence, block.heads, :, block.keys].to(device, torch.float64)
    return logits if finite is None else logits.add_(block.of(finite).double())


def _model_mass(
    weights: torch.Tensor, block: _Block, hidden: Hidden, sees_zeroth: torch.Tensor, space: Space
) -> torch.Tensor:
    """(head, query) sums of the model's own probabilities over visible keys."""
    others, zeroth = weights[block.index], weights[block._replace(keys=slice(0, 1)).index].squeeze(-1)
    wide = space("exponentials", others.shape, torch.float64, sees_zeroth.device).copy_(others)
    return hidden.fill(wide, 0).sum(-1) + zeroth.to(sees_zeroth) * sees_zeroth
