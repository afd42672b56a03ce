"""What a record says of a layer's attention, held against what the model's own class does there.

Names of tensors do not say what a model makes of them: whether a token sees the ones behind it, where a norm stands,
which planes positions turn, what scales the logits. So some tokens are followed through the class, and four things
are compared with what the analyses take for granted:

    probabilities   softmax of the logits that our statistics are made of, with the class's own (eager only)
    output          these probabilities times the values, with what the attention function returns
    reads           the stream as the record's norm gives it, with what the attention module is given
    heads           queries, keys and values from the record's roles, with those that the attention function is given

Of heads only directions are compared, for each token, of the planes that positions turn and of the other dimensions
apart: a turn leaves the size of every plane, and a factor on all of a head's logits is not the record's affair. So it
does not see a record that has more planes turn than do, nor one norm of all heads taken for a norm of each.
"""

from collections.abc import Iterable

import torch

from analyses.forward.probe import AttentionInputs, Seen
from analyses.weights.checkpoint import Checkpoint

TOKENS = 64  # of the text, followed through norms and projections
FAINT = 1e-3  # of the largest: a vector shorter than this has no direction worth comparing
EPS = ("eps", "variance_epsilon", "epsilon")  # attributes of a norm's module


def witness(
    checkpoint: Checkpoint,
    layer: int,
    module: torch.nn.Module,
    inputs: AttentionInputs,
    real: torch.Tensor,
    stream: torch.Tensor,
    read: torch.Tensor,
) -> Seen:
    """Compare one layer, on the last and on the middle token of every sequence and on the first TOKENS of the text.

    Parameters
    ----------
    module : the layer. inputs : what its attention function received and returned.
    real : (sequence, token), whether a token is of the text.
    stream, read : (token, hidden), what enters the layer and its attention module, of the first TOKENS.
    """
    ends = real.sum(1) - 1
    both = [_queries(inputs, at) for at in (ends, ends // 2)]
    normed = _normed(checkpoint, layer, module, stream)
    return Seen(
        probabilities=_worst(one[0] for one in both),
        output=_worst(one[1] for one in both),
        reads=_relative(normed, read.double()),
        heads=_heads(checkpoint, layer, module, inputs, real, read.double()),
    )


def _worst(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    largest = float(theirs.abs().max())
    return float((ours - theirs).abs().max()) / (largest or 1.0)


# --- probabilities ------------------------------------------------------------------------------------


def _queries(inputs: AttentionInputs, at: torch.Tensor) -> tuple[float | None, float | None]:
    """Differences of probabilities and outputs for one query of each sequence, at these places."""
    at = at.to(inputs.query.device)
    every = torch.arange(len(at), device=at.device)
    query = inputs.query[every, :, at].double()  # (sequence, head, head_dim)
    group = query.shape[1] // inputs.key.shape[1]
    keys = inputs.key.double().repeat_interleave(group, 1)  # (sequence, head, key, head_dim)
    logits = inputs.scaling * (keys @ query.unsqueeze(-1)).squeeze(-1)  # (sequence, head, key)
    if inputs.softcap is not None:
        logits = inputs.softcap * torch.tanh(logits / inputs.softcap)
    if inputs.bias is not None:
        logits = logits + inputs.bias[:, :, 0].double()
    mask = inputs.mask.expand(len(at), *inputs.mask.shape[1:])[every, :, at].to(at.device)  # (sequence, 1 or head, key)
    hidden = ~mask if mask.dtype == torch.bool else mask <= torch.finfo(mask.dtype).min / 2
    added = 0.0 if mask.dtype == torch.bool else mask.double().masked_fill(hidden, 0)
    logits = (logits + added).masked_fill(hidden, -torch.inf)
    if inputs.sinks is not None:
        sinks = inputs.sinks.double().to(at.device).view(1, -1, 1).expand(len(at), -1, 1)
        logits = torch.cat([logits, sinks], -1)
    found = logits.softmax(-1)[..., : mask.shape[-1]]
    differs = output = None
    if inputs.weights is not None:
        differs = float((found - inputs.weights[every, :, at].double()).abs().max())
    if inputs.value is not None and inputs.output is not None:
        values = inputs.value.double().repeat_interleave(group, 1)
        written = (found.unsqueeze(-2) @ values).squeeze(-2)  # (sequence, head, value_dim)
        output = _relative(written, inputs.output[every, at].double())
    return differs, output


# --- norms and projections --------------------------------------------------------------------------


def _normed(checkpoint: Checkpoint, layer: int, module: torch.nn.Module, stream: torch.Tensor) -> torch.Tensor:
    """The stream as the record says that attention reads it."""
    record, rows = checkpoint.architecture, stream.double()
    if record.bare_norms:
        return _scaled(rows, 1e-5, centre=record.layer_norm)
    if not checkpoint.has("input_ln", layer):
        return rows
    name = checkpoint.places["input_ln"].name.partition(".{}.")[2].rpartition(".")[0]
    bias = checkpoint.bias("input_ln", layer)
    gained = _scaled(rows, _eps(module, name), centre=record.layer_norm)
    gained = gained * _on(rows, checkpoint.weight("input_ln", layer))
    if record.reads_scaled:
        gained = gained * checkpoint.config.get("attention_in_multiplier", 1.0)
    return gained if bias is None else gained + _on(rows, bias)


def _on(rows: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return value.to(rows.device)


def _eps(module: torch.nn.Module, name: str) -> float:
    """What the class adds to the mean square in its norm of this name, or in its first where it has another name."""
    try:
        norms = [module.get_submodule(name)]
    except AttributeError:
        norms = list(module.modules())
    found = (getattr(norm, key, None) for norm in norms for key in EPS)
    return next((float(eps) for eps in found if isinstance(eps, float)), 0.0)


def _scaled(rows: torch.Tensor, eps: float, *, centre: bool) -> torch.Tensor:
    if centre:
        rows = rows - rows.mean(-1, keepdim=True)
    return rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + eps)


def _heads(
    checkpoint: Checkpoint,
    layer: int,
    module: torch.nn.Module,
    inputs: AttentionInputs,
    real: torch.Tensor,
    read: torch.Tensor,
) -> float | None:
    """Worst difference of unit vectors of queries, keys and values over tokens, heads and what turns or does not."""
    worst = None
    turned = checkpoint.rotary_dims(layer)
    pairs = checkpoint.architecture.rotary == "pairs"
    for family, given in (("q_proj", inputs.query), ("k_proj", inputs.key), ("v_proj", inputs.value)):
        if given is None or family not in checkpoint.places:
            continue
        theirs = given.transpose(1, 2)[real.to(given.device)][: len(read)].double()  # (token, head, dim)
        ours = _projected(checkpoint, family, layer, module, read)
        if theirs.shape[1] != ours.shape[1]:  # keys repeated for the queries of their group
            theirs = theirs[:, :: theirs.shape[1] // ours.shape[1]]
        dims = 0 if family == "v_proj" else turned
        if checkpoint.architecture.latent and family != "v_proj":  # what is for positions stands behind there
            placed = checkpoint.config["qk_rope_head_dim"]
            theirs = torch.cat([theirs[..., -placed:], theirs[..., :-placed]], -1)
            if not dims:  # and passes no norm, as the rest does
                worst = _worst([worst, _unlike(ours[..., :placed], theirs[..., :placed])])
                ours, theirs = ours[..., placed:], theirs[..., placed:]
        still = ours[..., dims:], theirs[..., dims:]
        if dims and checkpoint.architecture.qk_norm_behind_turn and family != "v_proj":
            gain = _on(theirs, checkpoint.head_gains(f"{family[0]}_norm", layer))
            ours, theirs = (heads / gain for heads in (ours, theirs))
        if dims:
            sizes = _sizes(ours[..., :dims], pairs=pairs)
            ways = [_sizes(theirs[..., :dims], pairs=way) for way in ({True, False} if pairs else {False})]
            worst = _worst([worst, min(_unlike(sizes, way) for way in ways)])
        worst = _worst([worst, _unlike(*still) if still[0].shape[-1] else None])
    return worst


def _projected(
    checkpoint: Checkpoint, family: str, layer: int, module: torch.nn.Module, read: torch.Tensor
) -> torch.Tensor:
    """(token, head, dim) before positions turn them, with the q/k norms of the record."""
    record, gain = checkpoint.architecture, f"{family[0]}_norm"
    rows = read @ _on(read, checkpoint.weight(family, layer)).mT
    if (bias := None if record.latent else checkpoint.bias(family, layer)) is not None:
        rows = rows + _on(rows, bias)
    if (clip := checkpoint.config.get("clip_qkv")) is not None:
        rows = rows.clamp(-clip, clip)
    dim = checkpoint.shape.value_dim if family == "v_proj" else checkpoint.shape.head_dim
    heads = rows.unflatten(1, (-1, dim))
    if family == "v_proj" or gain not in checkpoint.places:
        return heads
    name = checkpoint.places[gain].name.partition(".{}.")[2].rpartition(".")[0]
    eps = _eps(module, name.replace("{part}", "0"))
    if record.qk_norm == "whole projection":
        heads = _scaled(rows, eps, centre=record.qk_layer_norm).unflatten(1, (-1, dim))
    else:
        heads = _scaled(heads, eps, centre=record.qk_layer_norm)
    heads = heads * _on(rows, checkpoint.head_gains(gain, layer))
    bias = checkpoint.bias(gain, layer)
    return heads if bias is None else heads + _on(rows, bias).unflatten(0, (-1, dim))


def _sizes(rows: torch.Tensor, *, pairs: bool) -> torch.Tensor:
    """(…, plane) lengths of the planes that positions turn."""
    planes = rows.unflatten(-1, (-1, 2)) if pairs else rows.unflatten(-1, (2, -1)).mT
    return planes.norm(dim=-1)


def _unlike(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Worst distance of unit vectors along the last axis, of those that are not faint."""
    size, other = ours.norm(dim=-1), theirs.norm(dim=-1)
    clear = (size > FAINT * size.max()) & (other > FAINT * other.max())
    if not clear.any():
        return 0.0
    ours, theirs = ours[clear] / size[clear].unsqueeze(-1), theirs[clear] / other[clear].unsqueeze(-1)
    return float((ours - theirs).norm(dim=-1).max())
