"""One layer of a model in float64, from its tensors on disk and the facts of its record alone.

What no weight shows is read from the config: the activation, eps, the scale of the logits, windows,
the base of the rotary angles, how many experts a token chooses.
"""

import math
from typing import NamedTuple

import torch
from transformers.activations import ACT2FN

from analyses.weights.checkpoint import Checkpoint


class Layer(NamedTuple):
    logits: torch.Tensor  # (head, token, key) before the mask
    attention: torch.Tensor  # (head, token, key) probabilities
    attention_branch: torch.Tensor  # (token, hidden), before any residual multiplier
    feed_forward_branch: torch.Tensor  # (token, hidden)
    output: torch.Tensor  # (token, hidden)
    middle: torch.Tensor  # (token, hidden), the stream between the branches, where they stand one behind the other


def run_layer(checkpoint: Checkpoint, layer: int, stream: torch.Tensor, middle: torch.Tensor | None = None) -> Layer:
    """The layer's output and what it is made of, for a stream of (token, hidden) float64.

    `middle` stands in for the stream between the branches, whatever the attention wrote.
    """
    record = checkpoint.architecture
    read = _norm(checkpoint, "input_ln", layer, stream)
    logits = _logits(checkpoint, layer, read)
    visible = _visible(checkpoint, layer, len(stream))
    attention = logits.masked_fill(~visible, -math.inf).softmax(-1)
    mixed = attention @ _heads(checkpoint, "v_proj", layer, read)  # (head, token, head_dim)
    first = _behind(checkpoint, "attn_out_ln", layer, _linear(checkpoint, "o_proj", layer, mixed.mT.flatten(0, 1).mT))
    factor = checkpoint.config[record.residual_multiplier] if record.residual_multiplier else 1.0
    if middle is None:
        middle = stream + factor * first
        middle = _norm(checkpoint, "post_attn_ln", layer, middle) if record.post_norm else middle
    if record.post_norm:
        read = middle
    elif record.feed_forward_norm != "input_ln":  # else it reads what attention has read
        read = _norm(checkpoint, "post_attn_ln", layer, stream if record.parallel else middle)
    second = _behind(checkpoint, "ffn_out_ln", layer, _feed_forward(checkpoint, layer, read))
    output = middle + factor * second
    if record.post_norm:
        output = _norm(checkpoint, "ffn_out_ln", layer, output)
    return Layer(logits, attention, first, second, output, middle)


# --- attention ------------------------------------------------------------------------------------


def _logits(checkpoint: Checkpoint, layer: int, read: torch.Tensor) -> torch.Tensor:
    config, shape = checkpoint.config, checkpoint.shape
    query, key = (_rotated(checkpoint, layer, _heads(checkpoint, f, layer, read)) for f in ("q_proj", "k_proj"))
    scale = config.get("query_pre_attn_scalar", shape.head_dim) ** -0.5
    products = query @ key.mT
    if checkpoint.architecture.name == "Falcon" and config["alibi"]:
        # The library's eager attention adds it twice, in the scores and through the mask; its sdpa once.
        products = products + 2 * _alibi(shape.heads, len(read))
    logits = config.get("attention_multiplier", scale) * products
    if checkpoint.architecture.name == "BLOOM":
        logits = logits + _alibi(shape.heads, len(read))
    if cap := config.get("attn_logit_softcapping"):
        logits = cap * torch.tanh(logits / cap)
    return logits


def _heads(checkpoint: Checkpoint, family: str, layer: int, read: torch.Tensor) -> torch.Tensor:
    """(head, token, head_dim), keys and values repeated for the queries of their group, q/k norms applied."""
    record, shape, gain = checkpoint.architecture, checkpoint.shape, family[0] + "_norm"
    values = _linear(checkpoint, family, layer, read)  # (token, out)
    if gain in checkpoint.families:
        if record.qk_norm == "whole projection":
            values = _normalised(values, checkpoint) * checkpoint.weight(gain, layer)
        else:
            bias = checkpoint.bias(gain, layer)
            heads = _normalised(values.unflatten(1, (-1, shape.head_dim)), checkpoint, centre=record.qk_layer_norm)
            values = (heads * checkpoint.head_gains(gain, layer) + (0 if bias is None else bias)).flatten(1)
    heads = values.unflatten(1, (-1, shape.head_dim)).transpose(0, 1)
    return heads.repeat_interleave(shape.heads // len(heads), 0)


def _rotated(checkpoint: Checkpoint, layer: int, heads: torch.Tensor) -> torch.Tensor:
    dims = checkpoint.rotary_dims(layer)
    if not dims:
        return heads
    rope = checkpoint.config.get("rope_parameters") or {}
    if kinds := checkpoint.config.get("layer_types"):
        rope = rope.get(kinds[layer], rope)
    theta = rope.get("rope_theta", 10_000.0)
    angles = torch.arange(heads.shape[1]).double()[:, None] * theta ** (-torch.arange(0, dims, 2).double() / dims)
    pairs = checkpoint.architecture.rotary == "pairs"
    turned, rest = heads[..., :dims], heads[..., dims:]
    planes = turned.unflatten(-1, (-1, 2)) if pairs else turned.unflatten(-1, (2, -1)).mT  # (…, plane, 2)
    a, b = planes.unbind(-1)
    planes = torch.stack([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)
    return torch.cat([planes.flatten(-2) if pairs else planes.mT.flatten(-2), rest], -1)


def _alibi(heads: int, tokens: int) -> torch.Tensor:
    slopes = 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1).double())  # heads a power of two
    return slopes[:, None, None] * torch.arange(tokens)


def _visible(checkpoint: Checkpoint, layer: int, tokens: int) -> torch.Tensor:
    """(token, key) bool."""
    back = torch.arange(tokens)[:, None] - torch.arange(tokens)
    if checkpoint.architecture.encoder:
        return torch.ones_like(back, dtype=torch.bool)
    kinds = checkpoint.config.get("layer_types") or ["full_attention"] * (layer + 1)
    window = checkpoint.config["sliding_window"] if kinds[layer] == "sliding_attention" else tokens
    return (back >= 0) & (back < window)


# --- feed-forward -----------------------------------------------------------------------------------


def _feed_forward(checkpoint: Checkpoint, layer: int, read: torch.Tensor) -> torch.Tensor:
    config = checkpoint.config
    if not checkpoint.architecture.experts:
        return _neurons(checkpoint, layer, read, None)
    chances = (read @ checkpoint.weight("router", layer).mT).softmax(-1)
    top, chosen = chances.topk(config["num_experts_per_tok"], dim=-1)
    if config.get("norm_topk_prob", True):
        top = top / top.sum(-1, keepdim=True)
    shares = torch.zeros_like(chances).scatter(1, chosen, top)  # (token, expert)
    return sum(shares[:, [e]] * _neurons(checkpoint, layer, read, e) for e in range(checkpoint.experts("up_proj")))


def _neurons(checkpoint: Checkpoint, layer: int, read: torch.Tensor, expert: int | None) -> torch.Tensor:
    config = checkpoint.config
    keys = ("hidden_act", "activation_function", "hidden_activation", "activation")
    name = next((config[k] for k in keys if k in config), "gelu_new")
    activation = ACT2FN["gelu_pytorch_tanh" if name == "gelu_new" else name]
    up = _linear(checkpoint, "up_proj", layer, read, expert)
    if checkpoint.architecture.gated:
        neurons = activation(_linear(checkpoint, "gate_proj", layer, read, expert)) * up
    else:
        neurons = activation(up)
    return _linear(checkpoint, "down_proj", layer, neurons, expert)


# --- norms and matrices -----------------------------------------------------------------------------


def _linear(
    checkpoint: Checkpoint, family: str, layer: int, x: torch.Tensor, expert: int | None = None
) -> torch.Tensor:
    bias = checkpoint.bias(family, layer)
    return x @ checkpoint.weight(family, layer, expert=expert).mT + (0 if bias is None else bias)


def _norm(checkpoint: Checkpoint, role: str, layer: int, x: torch.Tensor) -> torch.Tensor:
    """Through the norm with this gain; as it is where the architecture has no such norm."""
    if checkpoint.architecture.bare_norms:
        return _normalised(x, checkpoint)
    if role not in checkpoint.places:
        return x
    bias = checkpoint.bias(role, layer)
    return _normalised(x, checkpoint) * checkpoint.weight(role, layer) + (0 if bias is None else bias)


def _behind(checkpoint: Checkpoint, role: str, layer: int, x: torch.Tensor) -> torch.Tensor:
    """Through a norm behind a branch, where there is one and it stands before the sum."""
    before_the_sum = role in checkpoint.places and not checkpoint.architecture.post_norm
    return _norm(checkpoint, role, layer, x) if before_the_sum else x


def _normalised(x: torch.Tensor, checkpoint: Checkpoint, centre: bool | None = None) -> torch.Tensor:
    config = checkpoint.config
    keys = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
    eps = next((config[k] for k in keys if config.get(k) is not None), 1e-5)
    if checkpoint.architecture.layer_norm if centre is None else centre:
        x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
