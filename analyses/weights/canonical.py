"""Forms of neurons and heads that do not depend on the coordinates in which they are stored.

Many changes of the weights leave the model's function alone: moving a norm's gain into the
matrices that read behind it, scaling a neuron's up row and undoing it in its down column, any
invertible map between values and output, rotations between queries and keys. The forms here
are what such a map cannot touch; only order, and the sign that up and down share, stay free.

Norm gains are folded into the matrices that read the residual stream, and under LayerNorm all
directions are centred (but not what reads a stream that is itself normalised: that carries the
norm's gain). A neuron is its gate row, up row and down column, each of unit length. A head is its
maps g = W_kᵀW_q (with q/k-norm gains) and W_oW_v, kept as their factors.
"""

import torch

from analyses.weights import latent
from analyses.weights.checkpoint import Checkpoint

FEED_FORWARD = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}

Factors = tuple[torch.Tensor, torch.Tensor]  # (kv_head, head_dim, hidden) and (head, head_dim, hidden)
HeadFactors = tuple[Factors, Factors]


def neuron_rows(
    checkpoint: Checkpoint,
    role: str,
    layer: int,
    device: str,
    *,
    expert: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """(neuron, hidden): rows of gate and up as they read the stream, columns of down; of one expert where there are."""
    stored = checkpoint.stored(FEED_FORWARD[role], layer, expert=expert, device=device)
    if role == "down":
        return centred(checkpoint, stored.to(dtype).mT)
    gain = _gain(checkpoint, checkpoint.architecture.feed_forward_norm, layer, device, dtype)
    return centred(checkpoint, _times(stored, gain, dtype))


def head_factors(
    checkpoint: Checkpoint, layer: int, device: str, *, dtype: torch.dtype = torch.float64
) -> HeadFactors:
    """((W_k, W_q), (W_v, W_oᵀ)) by head, (kv_head or head, head_dim, hidden), with all gains folded in."""
    q, k, v = (read_by_heads(checkpoint, f, layer, device, dtype=dtype) for f in ("q_proj", "k_proj", "v_proj"))
    if checkpoint.has_qk_norm:
        q = q * qk_gain(checkpoint, "q_proj", layer, len(q), device).to(dtype)
        k = k * qk_gain(checkpoint, "k_proj", layer, len(k), device).to(dtype)
    o = checkpoint.stored("o_proj", layer, device=device).to(dtype).mT
    return (k, q), (v, centred(checkpoint, o.unflatten(0, (-1, checkpoint.shape.value_dim))))


def read_by_heads(
    checkpoint: Checkpoint, family: str, layer: int, device: str, *, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Rows of q_proj, k_proj or v_proj by head, (head or kv_head, head_dim, hidden), as they read the stream.

    The input norm's gain is folded in, and what its centring, or that of a LayerNorm of queries or
    keys, never lets through is taken out.
    """
    if checkpoint.architecture.latent:
        dim = checkpoint.shape.value_dim if family == "v_proj" else checkpoint.shape.head_dim
        gain = _gain(checkpoint, "input_ln", layer, device)
        return latent.rows(checkpoint, family, layer, device, gain=gain).to(dtype).unflatten(0, (-1, dim))
    stored = checkpoint.stored_heads(family, layer, device=device)
    rows = _times(stored, _gain(checkpoint, "input_ln", layer, device, dtype), dtype)
    if not checkpoint.architecture.post_norm:  # there the stream carries the gain of the norm that made it
        rows = centred(checkpoint, rows)
    if checkpoint.architecture.qk_layer_norm and checkpoint.has_qk_norm and family != "v_proj":
        rows = rows - rows.mean(-2, keepdim=True)
    return rows


def _times(stored: torch.Tensor, gain: torch.Tensor | float, dtype: torch.dtype) -> torch.Tensor:
    """Rows in `dtype`, times a gain; what is stored stays as it is, and of its copies one is held."""
    rows = stored.to(dtype)
    return rows * gain if rows is stored else rows.mul_(gain)


def qk_gain(checkpoint: Checkpoint, family: str, layer: int, heads: int, device: str) -> torch.Tensor:
    """Gain of the norm of q_proj or k_proj for so many heads, (head or 1, head_dim, 1)."""
    gain = checkpoint.head_gains(f"{family[0]}_norm", layer, device=device)  # (head, kv_head or 1; head_dim)
    return gain.repeat_interleave(heads // len(gain) if len(gain) > 1 else 1, 0).unsqueeze(-1)


def _gain(
    checkpoint: Checkpoint, family: str | None, layer: int, device: str, dtype: torch.dtype = torch.float64
) -> torch.Tensor | float:
    """The gain that stands in front, also where its own comparison was left out."""
    if not family or not checkpoint.has(family, layer):
        return 1.0
    return checkpoint.weight(family, layer, device=device).to(dtype)


def centred(checkpoint: Checkpoint, rows: torch.Tensor) -> torch.Tensor:
    """Rows (..., hidden) without their mean where the norm is a LayerNorm, which never sees it."""
    return rows - rows.mean(-1, keepdim=True) if checkpoint.architecture.layer_norm else rows


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """(neuron, hidden) rows scaled to unit length; a zero row stays zero."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / length.where(length > 0, 1.0)
