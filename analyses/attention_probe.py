"""How spread is a layer's attention, and how large are its logits, per head?

Entropy and logit spread are computed again from the queries and keys that the model used, in
float64: the model's own probabilities are rounded to its dtype and underflow to zero, and a fused
attention function never shows them. Visible keys are those that the model's own mask lets through,
so that sliding windows and padding count as they are. The probe works on a block of heads at a
time; of each block only sums over queries remain, never a (token × token) array.
"""

import math
from dataclasses import dataclass

import torch

from analyses.forward import AttentionInputs, Probe

BLOCK_ENTRIES = 1 << 22  # logits held at a time, 32 MiB as float64; a single head may exceed it


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
        self.layers[layer] = head_means(inputs, self.real)


def head_means(inputs: AttentionInputs, real: torch.Tensor, *, block_entries: int = BLOCK_ENTRIES) -> HeadMeans:
    """Attention statistics of one layer.

    Logits are scaling·q·k, capped where the model caps, plus the mask's finite part; a key is
    visible where the mask lies above half of its dtype's most negative number. The product is taken
    in float32 or wider, everything after it in float64. Entropy is −Σ p ln p with ln p from a
    log-softmax, exact also where p underflows.

    Parameters
    ----------
    inputs : what the layer's attention function received.
    real : (sequence, token) bool, the queries to count.
    block_entries : logits to hold at a time.

    Raises
    ------
    ValueError if a query sees no key.
    """
    sequences, heads, tokens, _ = inputs.query.shape
    device = torch.device("cpu") if inputs.query.device.type == "mps" else inputs.query.device  # mps has no float64
    real = real.to(device)
    per_block = max(1, block_entries // (sequences * tokens * inputs.key.shape[2]))
    totals: list[dict[str, torch.Tensor]] = []
    for first in range(0, heads, per_block):
        block = range(first, min(first + per_block, heads))
        logits, visible = _logits(inputs, block, device)
        own = None if inputs.weights is None else inputs.weights[:, block.start : block.stop].to(device)
        totals.append(_block_totals(logits, visible, real, own))
        del logits, visible, own
    sums = {name: torch.cat([t[name].cpu() for t in totals]) for name in totals[0]}  # (head,)

    def mean(name: str) -> torch.Tensor:
        return sums[name] / sums[name + "_n"]

    names = ("entropy", "entropy_fraction", "logit_std", "sink_share", "entropy_without_sink", "logit_std_without_sink")
    return HeadMeans(
        **{name: mean(name) for name in names},
        entropy_excess=float(sums["entropy_excess"].max()),
        row_sum_error=float(sums["row_sum_error"].max()),
        queries=int(real.sum()),
    )


def _logits(inputs: AttentionInputs, block: range, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits float64, visible bool), each (sequence, head of the block, token, key)."""
    wide = torch.promote_types(inputs.query.dtype, torch.float32)
    group = inputs.query.shape[1] // inputs.key.shape[1]
    kv_heads = torch.tensor([head // group for head in block])
    query = inputs.query[:, block.start : block.stop].to(device, wide)
    key = inputs.key[:, kv_heads.to(inputs.key.device)].to(device, wide)
    logits = (query @ key.mT).mul_(inputs.scaling).double()
    if inputs.softcap is not None:
        logits = logits.div_(inputs.softcap).tanh_().mul_(inputs.softcap)
    mask = inputs.mask if inputs.mask.shape[1] == 1 else inputs.mask[:, block.start : block.stop]
    mask = mask.to(device)
    visible = (mask > torch.finfo(mask.dtype).min / 2).expand_as(logits)
    return logits.add_(mask.double().masked_fill(~visible, 0)), visible


def _block_totals(
    logits: torch.Tensor, visible: torch.Tensor, real: torch.Tensor, own: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Sums over queries and the numbers of queries summed, each (head,)."""
    heads = logits.shape[1]
    real = real[:, None].expand(logits.shape[:3])  # (sequence, head, token)
    keys = visible.sum(-1)  # (sequence, head, token)
    if not (keys > 0)[real].all():
        raise ValueError("a query sees no key: the attention mask was not read as the model reads it")
    sums: dict[str, torch.Tensor] = {}

    def add(name: str, values: torch.Tensor, where: torch.Tensor) -> None:
        sums[name] = torch.where(where, values, 0).sum((0, 2))
        sums[name + "_n"] = where.sum((0, 2))

    entropy, probability = _entropy(logits, visible)
    bound = keys.clamp_min(1).double().log()
    add("entropy", entropy, real)
    add("entropy_fraction", entropy / bound.clamp_min(math.log(2)), real & (keys >= 2))
    excess = torch.maximum(entropy - bound, -entropy)
    sums["entropy_excess"] = torch.where(real, excess, -math.inf).amax((0, 2))
    shown = probability if own is None else own.double()
    row_sum = torch.where(visible, shown, 0).sum(-1)
    sums["row_sum_error"] = torch.where(real, (row_sum - 1).abs(), 0).amax((0, 2))
    add("logit_std", _std(logits, visible), real & (keys >= 2))
    later = torch.arange(logits.shape[2], device=logits.device) > 0
    add("sink_share", probability[..., 0], real & later)
    del probability, shown
    others = visible.clone()
    others[..., 0] = False
    enough = real & (others.sum(-1) >= 2)
    add("entropy_without_sink", _entropy(logits, others)[0], enough)
    add("logit_std_without_sink", _std(logits, others), enough)
    assert all(total.shape == (heads,) for total in sums.values())
    return sums


def _entropy(logits: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(entropy (…, query) in nats, probabilities (…, query, key)) of a softmax over visible keys."""
    log_p = logits.masked_fill(~visible, -math.inf).log_softmax(-1)
    probability = log_p.exp()
    # Hidden keys have p = 0 and ln p = −inf; underflown ones p = 0 and a finite ln p.
    return -(probability * log_p.masked_fill_(~visible, 0)).sum(-1), probability


def _std(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Population standard deviation over the last axis, of the entries in `where`."""
    n = where.sum(-1, keepdim=True).clamp_min(1)
    centred = values - torch.where(where, values, 0).sum(-1, keepdim=True) / n
    return torch.where(where, centred, 0).square_().sum(-1).div_(n[..., 0]).sqrt_()
