"""How spread is a layer's attention, and how large are its logits, per head?

Entropy and logit spread are computed again from the queries and keys that the model used, in
float64: the model's own probabilities are rounded to its dtype and underflow to zero, and a fused
attention function never shows them. Visible keys are those that the model's own mask lets through,
so that sliding windows count as they are. The probe works on a block of heads of one sequence at a
time; of each block only sums over queries remain, never a (token × token) array.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from analyses.errors import InputError
from analyses.probe import AttentionInputs, Probe

BLOCK_ENTRIES = 1 << 22  # logits held at a time, 32 MiB as float64; a single head may exceed it
QUERIES = 128  # worked on at a time, with the keys that they see: half of all pairs are hidden under a causal mask
STATISTICS = (
    "entropy",
    "entropy_fraction",
    "logit_std",
    "sink_share",
    "entropy_without_sink",
    "logit_std_without_sink",
)
WORST = ("entropy_excess", "row_sum_error")  # kept as maxima over queries, where the statistics are sums


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadMeans:
    """Means over the queries of all sequences, (head,) float64; NaN where no query qualifies."""

    entropy: torch.Tensor  # nats, over all queries
    entropy_fraction: torch.Tensor  # of ln(visible keys), over queries with at least two
    logit_std: torch.Tensor  # population form over visible keys, over queries with at least two
    sink_share: torch.Tensor  # probability on key 0, over queries other than the first
    entropy_without_sink: torch.Tensor  # key 0 left out and the rest renormalised, where two or more remain
    logit_std_without_sink: torch.Tensor  # key 0 left out, where two or more remain
    entropy_excess: float  # worst of entropy − ln(visible keys) and −entropy over queries and heads, nats
    row_sum_error: float  # worst |Σ visible probabilities − 1|, of the model's own where it shows them
    queries: int  # over all sequences


class AttentionProbe(Probe):
    """Collects `HeadMeans` layer by layer."""

    def __init__(self) -> None:
        self.layers: dict[int, HeadMeans] = {}

    def begin(self, real: torch.Tensor) -> None:
        self.real = real

    def attention(self, layer: int, inputs: AttentionInputs) -> None:
        for name, states in (("queries", inputs.query), ("keys", inputs.key)):
            if not states.transpose(1, 2)[self.real.to(states.device)].isfinite().all():
                raise InputError(f"layer {layer}: {name} are not finite; use a wider --dtype")
        self.layers[layer] = head_means(inputs, self.real)


def head_means(inputs: AttentionInputs, real: torch.Tensor, *, block_entries: int = BLOCK_ENTRIES) -> HeadMeans:
    """Attention statistics of one layer.

    Logits are scaling·q·k, capped where the model caps, plus the bias of positions and the mask's finite part; a key is
    visible where the mask lies above half of its dtype's most negative number. The product is taken
    in float32 or wider, everything after it in float64. Entropy is exact also where probabilities
    underflow (`_over_keys`).

    Parameters
    ----------
    inputs : what the layer's attention function received.
    real : (sequence, token) bool, False on the padding at a sequence's end.
    block_entries : logits to hold at a time.

    Raises
    ------
    ValueError if a query sees no key, or sees padding.
    """
    device = torch.device("cpu") if inputs.query.device.type == "mps" else inputs.query.device  # mps has no float64
    totals: dict[str, torch.Tensor] = {}  # name → (head,), sums over the queries read so far
    for sequence, tokens in enumerate(real.sum(1).tolist()):
        mask = inputs.mask[sequence, :, :tokens].to(device)
        visible = mask > torch.finfo(mask.dtype).min / 2  # (1 or head, query, key)
        if visible[..., tokens:].any():
            raise ValueError("a query sees padding: the attention mask was not read as the model reads it")
        visible = visible[..., :tokens]
        finite = mask[..., :tokens].masked_fill(~visible, 0)
        step = max(1, block_entries // (min(tokens, QUERIES) * tokens))
        for start in range(0, tokens, QUERIES):
            queries = slice(start, min(start + QUERIES, tokens))
            keys = _range(visible[:, queries].flatten(0, 1).any(0))
            blocks = []
            for first in range(0, inputs.query.shape[1], step):
                part = _Part(sequence, slice(first, first + step), queries, keys)
                logits = _logits(inputs, part, finite if finite.any() else None, device)
                own = None if inputs.weights is None else inputs.weights[part.index].to(device)
                blocks.append(_sums(logits, part.of(visible), own, start=start, sink=keys.start == 0))
                del logits, own
            for name in blocks[0]:
                sums = torch.cat([block[name] for block in blocks])
                together = torch.maximum if name in WORST else torch.add
                totals[name] = together(totals[name], sums) if name in totals else sums
    totals = {name: sums.cpu() for name, sums in totals.items()}
    return HeadMeans(
        **{name: totals[name] / totals[name + "_n"] for name in STATISTICS},
        entropy_excess=float(totals["entropy_excess"].max()),
        row_sum_error=float(totals["row_sum_error"].max()),
        queries=int(real.sum()),
    )


class _Part(NamedTuple):
    """Heads, queries and keys of one sequence that are worked on together."""

    sequence: int
    heads: slice
    queries: slice
    keys: slice

    @property
    def index(self) -> tuple:
        return self.sequence, self.heads, self.queries, self.keys

    def of(self, per_pair: torch.Tensor) -> torch.Tensor:
        """The part's entries of a (1 or head, query, key) array."""
        return (per_pair if len(per_pair) == 1 else per_pair[self.heads])[:, self.queries, self.keys]


def _range(seen: torch.Tensor) -> slice:
    """From the first key to the last that any of the queries sees; all of them if none is seen."""
    (where,) = seen.nonzero(as_tuple=True)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, len(seen))


def _logits(
    inputs: AttentionInputs, part: _Part, finite: torch.Tensor | None, device: torch.device
) -> torch.Tensor:
    """Logits of one part, (head, query, key) float64; `finite` is what the mask adds, if anything."""
    wide = torch.promote_types(inputs.query.dtype, torch.float32)
    group = inputs.query.shape[1] // inputs.key.shape[1]
    query = inputs.query[part.sequence, part.heads, part.queries].to(device, wide)
    kv_heads = torch.arange(inputs.query.shape[1])[part.heads] // group
    key = inputs.key[part.sequence, kv_heads.to(inputs.key.device), part.keys].to(device, wide)
    logits = (query @ key.mT).mul_(inputs.scaling).double()
    if inputs.softcap is not None:
        logits = logits.div_(inputs.softcap).tanh_().mul_(inputs.softcap)
    if inputs.bias is not None:
        logits += inputs.bias[part.sequence, part.heads, :, part.keys].to(device, torch.float64)
    return logits if finite is None else logits.add_(part.of(finite).double())


def _sums(
    logits: torch.Tensor, visible: torch.Tensor, own: torch.Tensor | None, *, start: int, sink: bool
) -> dict[str, torch.Tensor]:
    """Sums over queries and the numbers of queries summed, or the worst of them; each (head,).

    Key 0 is kept out of all sums over keys and joined afterwards: taking it out of finished sums
    would leave nothing but rounding where it holds nearly all of the probability.

    Parameters
    ----------
    logits : (head, query, key) float64, overwritten. visible : (1 or head, query, key).
    start : number of the first query. sink : whether the first key here is key 0 of the sequence.
    """
    keys = visible.sum(-1)  # (1 or head, query)
    if not (keys > 0).all():
        raise ValueError("a query sees no key: the attention mask was not read as the model reads it")
    zeroth = logits[..., 0].clone()
    sees_zeroth = visible[..., 0] & sink
    hidden = ~visible
    if sink:
        hidden[..., 0] = True
    n, entropy, log_mass, mean, square = _over_keys(logits, hidden)
    # Of the probability on all keys, −ln of key 0's part and of the others'.
    odds = torch.where(sees_zeroth, log_mass - zeroth, math.inf)
    zero = torch.zeros_like(odds)
    less_zeroth, less_others = torch.logaddexp(zero, odds), torch.logaddexp(zero, -odds)
    p_zeroth, p_others = (-less_zeroth).exp(), (-less_others).exp()
    both = torch.where(p_zeroth > 0, p_zeroth * less_zeroth, 0)
    both += torch.where(p_others > 0, p_others * (less_others + entropy), 0)
    joined = square + torch.where(sees_zeroth & (n > 0), n / (n + 1) * (zeroth - mean).square(), 0)
    sums: dict[str, torch.Tensor] = {}

    def add(name: str, values: torch.Tensor, where: torch.Tensor) -> None:
        where = where.expand_as(values)
        sums[name] = torch.where(where, values, 0).sum(-1)
        sums[name + "_n"] = where.sum(-1)

    bound = keys.double().log()
    add("entropy", both, keys > 0)
    add("entropy_fraction", both / bound.clamp_min(math.log(2)), keys >= 2)
    add("logit_std", (joined / keys).sqrt(), keys >= 2)
    add("sink_share", p_zeroth, start + torch.arange(logits.shape[1], device=logits.device) > 0)
    add("entropy_without_sink", entropy, n >= 2)
    add("logit_std_without_sink", (square / n.clamp_min(1)).sqrt(), n >= 2)
    sums["entropy_excess"] = torch.maximum(both - bound, -both).amax(-1)
    total = p_zeroth + p_others if own is None else own.masked_fill(~visible, 0).sum(-1, dtype=torch.float64)
    sums["row_sum_error"] = (total - 1).abs().amax(-1)
    return sums


def _over_keys(logits: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of a softmax over the keys that are not hidden, each (head, query) but n, (1 or head, query).

    n : how many keys. entropy : nats, 0 where there is no key. log_mass : ln Σ exp(logit), −inf where there
    is none. mean : of the logits. square : Σ (logit − mean)².

    Every key is measured from the largest, whose own exp(0) is left out of the sum, so that ln(1 + rest)
    is exact however small the rest is; then entropy = ln(1 + rest) + Σ e·(−d)/(1 + rest) adds up numbers
    of one sign. The largest key is at 0 and in the sum, so that mean² ≤ square and Σd² − n·mean² loses at
    most a factor n.
    """
    n = (~hidden).sum(-1).double()  # counts of a whole type would divide into float32
    logits.masked_fill_(hidden, -math.inf)
    largest, where = logits.max(-1, keepdim=True)
    largest.masked_fill_(largest == -math.inf, 0)
    d = logits.sub_(largest)
    e = d.exp().scatter_(-1, where, 0)
    rest = e.sum(-1)
    d.masked_fill_(hidden, 0)
    entropy = rest.log1p() - e.mul_(d).sum(-1) / (1 + rest)
    total = d.sum(-1)
    mean = total / n.clamp_min(1)
    square = (d.square_().sum(-1) - total * mean).clamp_min_(0)
    largest = largest.squeeze(-1)
    return n, entropy, torch.where(n > 0, largest + rest.log1p(), -math.inf), largest + mean, square
