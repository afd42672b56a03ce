"""How spread is a layer's attention, and how large are its logits, per head?

Entropy and logit spread are computed again from the queries and keys that the model used, in
float64: the model's own probabilities are rounded to its dtype and underflow to zero, and a fused
attention function never shows them. Visible keys are those that the model's own mask lets through,
so that sliding windows count as they are. The probe works on a block of heads of one sequence at a
time; of each block only sums over queries remain, never a (token × token) array.
"""

import math
from dataclasses import dataclass

import torch

from analyses.errors import InputError
from analyses.probe import AttentionInputs, Probe

BLOCK_ENTRIES = 1 << 22  # logits held at a time, 32 MiB as float64; a single head may exceed it
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
    in float32 or wider, everything after it in float64. Entropy is −Σ p ln p with ln p from a
    log-softmax, exact also where p underflows.

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
        if (mask[..., tokens:] > torch.finfo(mask.dtype).min / 2).any():
            raise ValueError("a query sees padding: the attention mask was not read as the model reads it")
        blocks = []
        step = max(1, block_entries // tokens**2)
        for first in range(0, inputs.query.shape[1], step):
            heads = slice(first, first + step)
            logits, visible = _logits(inputs, sequence, tokens, heads, mask[..., :tokens])
            own = None if inputs.weights is None else inputs.weights[sequence, heads, :tokens, :tokens].to(device)
            blocks.append(_sums(logits, visible, own))
            del logits, visible, own
        for name in blocks[0]:
            sums = torch.cat([block[name] for block in blocks])
            together = torch.maximum if name in WORST else torch.add
            totals[name] = together(totals[name], sums) if sequence else sums
    totals = {name: sums.cpu() for name, sums in totals.items()}
    return HeadMeans(
        **{name: totals[name] / totals[name + "_n"] for name in STATISTICS},
        entropy_excess=float(totals["entropy_excess"].max()),
        row_sum_error=float(totals["row_sum_error"].max()),
        queries=int(real.sum()),
    )


def _logits(
    inputs: AttentionInputs, sequence: int, tokens: int, heads: slice, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits float64, visible bool) of one sequence, each (head of the block, query, key)."""
    wide = torch.promote_types(inputs.query.dtype, torch.float32)
    group = inputs.query.shape[1] // inputs.key.shape[1]
    query = inputs.query[sequence, heads, :tokens].to(mask.device, wide)
    kv_heads = torch.arange(inputs.query.shape[1])[heads] // group
    key = inputs.key[sequence, kv_heads.to(inputs.key.device), :tokens].to(mask.device, wide)
    logits = (query @ key.mT).mul_(inputs.scaling).double()
    if inputs.softcap is not None:
        logits = logits.div_(inputs.softcap).tanh_().mul_(inputs.softcap)
    if inputs.bias is not None:
        logits += inputs.bias[sequence, heads, :, :tokens].to(mask.device, torch.float64)
    mask = mask if len(mask) == 1 else mask[heads]
    visible = mask > torch.finfo(mask.dtype).min / 2
    return logits.add_(mask.double().masked_fill(~visible, 0)), visible.expand_as(logits)


def _sums(logits: torch.Tensor, visible: torch.Tensor, own: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Sums over queries and the numbers of queries summed, or the worst of them; each (head,)."""
    keys = visible.sum(-1)  # (head, query)
    if not (keys > 0).all():
        raise ValueError("a query sees no key: the attention mask was not read as the model reads it")
    sums: dict[str, torch.Tensor] = {}

    def add(name: str, values: torch.Tensor, where: torch.Tensor) -> None:
        sums[name] = torch.where(where, values, 0).sum(-1)
        sums[name + "_n"] = where.sum(-1)

    entropy, probability = _entropy(logits, visible)
    bound = keys.double().log()
    add("entropy", entropy, keys > 0)
    add("entropy_fraction", entropy / bound.clamp_min(math.log(2)), keys >= 2)
    add("logit_std", _std(logits, visible), keys >= 2)
    later = torch.arange(logits.shape[1], device=logits.device) > 0
    add("sink_share", probability[..., 0], later.expand_as(keys))
    sums["entropy_excess"] = torch.maximum(entropy - bound, -entropy).amax(-1)
    shown = probability if own is None else own.double()
    sums["row_sum_error"] = (shown.masked_fill(~visible, 0).sum(-1) - 1).abs().amax(-1)
    del probability, shown
    others = visible.clone()
    others[..., 0] = False
    enough = others.sum(-1) >= 2
    add("entropy_without_sink", _entropy(logits, others)[0], enough)
    add("logit_std_without_sink", _std(logits, others), enough)
    return sums


def _entropy(logits: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(entropy (…, query) in nats, probabilities (…, query, key)) of a softmax over visible keys.

    Where no key is visible both are NaN.
    """
    log_p = logits.masked_fill(~visible, -math.inf).log_softmax(-1)
    probability = log_p.exp()
    # Hidden keys have p = 0 and ln p = −inf; underflown ones p = 0 and a finite ln p.
    return -(probability * log_p.masked_fill_(~visible, 0)).sum(-1), probability


def _std(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Population standard deviation over the last axis, of the entries in `where`."""
    n = where.sum(-1, keepdim=True).clamp_min(1)
    centred = values - values.masked_fill(~where, 0).sum(-1, keepdim=True) / n
    return centred.masked_fill_(~where, 0).square_().sum(-1).div_(n[..., 0]).sqrt_()
