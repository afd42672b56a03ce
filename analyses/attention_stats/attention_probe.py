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

from collections.abc import Sequence
from typing import NamedTuple

import torch

from analyses.attention_stats.means import EARLY, HeadMeans, Hidden, Queries, Space, means, over_keys, span
from analyses.errors import InputError
from analyses.forward.probe import AttentionInputs, Probe, Seen
from analyses.numerics.prompt_groups import groups

BLOCK_ENTRIES = 1 << 20  # logits held at a time, 8 MiB as float64; a single head may exceed it
QUERIES = 128  # worked on at a time, with the keys that they see: half of all pairs are hidden under a causal mask
TOGETHER = 1 << 19  # logits of several sequences at a time
PADDING = 0.1  # of their tokens at most


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
    space, real = space or Space(), real.to(device)
    lengths = real.sum(1)
    position = torch.arange(real.shape[1], device=device).expand_as(real)[real]  # (query,), over all sequences
    rows = torch.empty(len(Queries._fields), heads, len(position), dtype=torch.float64, device=device)
    starts = lengths.cumsum(0) - lengths  # (sequence,) its first query's place
    for together in alike(lengths.tolist(), min(TOGETHER, block_entries) // heads):
        of_these = real[together]
        tokens = int(of_these.sum(1).max())
        visible, finite = _read(inputs.mask[together].to(device), of_these, tokens)
        sees_zeroth = visible[..., :1].clone()  # (sequence, 1 or head, query, 1)
        visible[..., 0] = False
        for start in range(0, tokens, QUERIES):
            queries = slice(start, min(start + QUERIES, tokens))
            counted = of_these[:, queries]  # (sequence, query)
            at = (starts[together, None] + torch.arange(start, queries.stop, device=device))[counted]
            keys = span(visible[:, :, queries].flatten(0, 2).any(0))
            of_all = Hidden.of(visible[:, :, queries, keys])
            entries = len(of_these) * (queries.stop - start) * (keys.stop - keys.start)
            for some in _blocks(heads, group, block_entries // entries):
                block = _Block(together, some, queries, keys)
                hidden = of_all.to(some)
                zeroth = block._replace(keys=slice(0, 1))
                first = _logits(inputs, zeroth, finite, space, device).squeeze(-1).clone()
                sees = zeroth.of(sees_zeroth).squeeze(-1)
                mass = torch.zeros((), dtype=torch.float64, device=device)
                if inputs.weights is not None:
                    mass = _model_mass(inputs.weights, block, hidden, sees, space)
                reduced = over_keys(_logits(inputs, block, finite, space, device), hidden, space)
                every = torch.stack([each.expand_as(first) for each in (*reduced, first, sees.double(), mass)])
                rows[:, some, at] = every.transpose(1, 2)[:, :, counted]
    early = early_queries(real)
    parts = groups(lengths.tolist()).slices
    sinks = None if inputs.sinks is None else inputs.sinks.to(device, torch.float64).unsqueeze(-1)
    shows = inputs.weights is not None
    return means(Queries(*rows), position, groups=parts, shows_weights=shows, early=early, sinks=sinks)


def early_queries(real: torch.Tensor) -> torch.Tensor:
    """(query,) bool over all real tokens of (sequence, token): the first EARLY of sequences that have as many."""
    inside = (torch.arange(real.shape[1], device=real.device) < EARLY) & (real.sum(1, keepdim=True) >= EARLY)
    return inside[real]


def alike(lengths: Sequence[int], most: int) -> list[slice | torch.Tensor]:
    """Sequences of similar length that are worked on together, as indices into the sequences; a long one alone.

    Parameters
    ----------
    lengths : of all sequences.
    most : pairs of a query and a key, padding included, of several together.

    >>> [len(torch.arange(5)[each]) for each in alike([3, 50, 3, 4, 52], 10_000)]
    [2, 1, 2]
    """
    found: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest, last = lengths[number], found[-1] if found else []
        together = len(last) + 1
        padding = together * longest - sum(lengths[i] for i in last) - longest
        if last and together * longest**2 <= most and padding <= PADDING * together * longest:
            last.append(number)
        else:
            found.append([number])
    return [slice(g[0], g[0] + 1) if len(g) == 1 else torch.tensor(g) for g in found]


class _Block(NamedTuple):
    """Heads, queries and keys of some sequences that are worked on together."""

    sequences: slice | torch.Tensor
    heads: slice
    queries: slice
    keys: slice

    def cut(self, states: torch.Tensor) -> torch.Tensor:
        """The block's entries of a (sequence, head, query, key) array."""
        return states[:, self.heads, self.queries, self.keys][self.sequences]

    def of(self, per_pair: torch.Tensor) -> torch.Tensor:
        """The block's entries of what these sequences' (sequence, 1 or head, query, key) array holds."""
        every_head = per_pair.shape[1] == 1
        return (per_pair if every_head else per_pair[:, self.heads])[:, :, self.queries, self.keys]


def _read(mask: torch.Tensor, real: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A mask of some sequences, of so many tokens at most: (what is visible, what it adds to the logits, if anything).

    real : (sequence, token). Of padding, keys are hidden, and what its queries see counts for nothing.
    """
    shown = mask.clone() if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    if (shown & real[:, None, :, None] & ~real[:, None, None]).any():
        raise ValueError("a query sees padding: the attention mask was not read as the model reads it")
    shown = (shown & real[:, None, None])[..., :tokens, :tokens]
    if mask.dtype == torch.bool:
        return shown, None
    finite = mask[..., :tokens, :tokens].masked_fill(~shown, 0)
    return shown, finite if finite.any() else None


def _blocks(heads: int, group: int, most: int) -> list[slice]:
    """So many heads at most, at least one; whole groups of a key head, or equal parts of one group."""
    most = max(most, 1)
    step = most - most % group if most >= group else max(n for n in range(1, most + 1) if group % n == 0)
    return [slice(first, min(first + step, heads)) for first in range(0, heads, step)]


def _logits(
    inputs: AttentionInputs, block: _Block, finite: torch.Tensor | None, space: Space, device: torch.device
) -> torch.Tensor:
    """Logits of one block, (sequence, head, query, key) float64, in the work space; `finite` is what the mask adds."""
    wide = torch.promote_types(inputs.query.dtype, torch.float32)
    group = inputs.query.shape[1] // inputs.key.shape[1]
    query = inputs.query[:, block.heads, block.queries][block.sequences].to(device, wide)
    kv_heads = slice(block.heads.start // group, (block.heads.stop - 1) // group + 1)
    key = inputs.key[:, kv_heads, block.keys][block.sequences].to(device, wide)
    sequences, heads, queries, _ = query.shape
    shape = (sequences, heads, queries, key.shape[2])
    # A group's queries stand below one another, so that its keys are read once.
    grouped = query.reshape(sequences * key.shape[1], -1, query.shape[-1])
    product = space("product", (*grouped.shape[:2], shape[3]), wide, device)
    torch.baddbmm(product, grouped, key.flatten(0, 1).mT, beta=0, alpha=inputs.scaling, out=product)
    logits = space("logits", shape, torch.float64, device).copy_(product.view(shape))
    if inputs.softcap is not None:
        logits.div_(inputs.softcap).tanh_().mul_(inputs.softcap)
    if inputs.bias is not None:
        bias = inputs.bias[:, block.heads, :, block.keys][block.sequences]
        logits += bias.to(device, torch.float64)
    return logits if finite is None else logits.add_(block.of(finite).double())


def _model_mass(
    weights: torch.Tensor, block: _Block, hidden: Hidden, sees_zeroth: torch.Tensor, space: Space
) -> torch.Tensor:
    """(sequence, head, query) sums of the model's own probabilities over visible keys."""
    others, zeroth = block.cut(weights), block._replace(keys=slice(0, 1)).cut(weights).squeeze(-1)
    wide = space("exponentials", others.shape, torch.float64, sees_zeroth.device).copy_(others)
    return hidden.fill(wide, 0).sum(-1) + zeroth.to(sees_zeroth.device, torch.float64) * sees_zeroth
