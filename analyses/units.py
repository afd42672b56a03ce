"""What is a neuron and what is a head, apart from the coordinates they happen to be stored in?

Many changes of the weights leave the model's function alone: moving a norm's gain into the
matrices that read behind it, scaling a neuron's up row and undoing it in its down column, any
invertible map between values and output, rotations between queries and keys. The forms here
are what such a map cannot touch; only order, and the sign that up and down share, stay free.

Norm gains are folded into the matrices that read the residual stream, and under LayerNorm all
directions are centred. A neuron is its gate row, up row and down column, each of unit length. A
head is its maps g = W_kᵀW_q (with q/k-norm gains) and W_oW_v, kept as their factors.
"""

import torch

from analyses.checkpoint import Checkpoint

FEED_FORWARD = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}

Factors = tuple[torch.Tensor, torch.Tensor]  # (kv_head, head_dim, hidden) and (head, head_dim, hidden)
HeadFactors = tuple[Factors, Factors]


def neuron_rows(checkpoint: Checkpoint, role: str, layer: int, device: str) -> torch.Tensor:
    """(neuron, hidden): rows of gate and up as they read the stream, columns of down."""
    weight = checkpoint.weight(FEED_FORWARD[role], layer, device=device)
    if role == "down":
        return centred(checkpoint, weight.mT)
    return centred(checkpoint, weight * _gain(checkpoint, "post_attn_ln", layer, device))


def head_factors(checkpoint: Checkpoint, layer: int, device: str) -> HeadFactors:
    """((W_k, W_q), (W_v, W_oᵀ)) by head, (kv_head or head, head_dim, hidden), with all gains folded in."""
    gain = _gain(checkpoint, "input_ln", layer, device)
    q, k, v = (
        centred(checkpoint, checkpoint.head_blocks(f, layer, device=device) * gain)
        for f in ("q_proj", "k_proj", "v_proj")
    )
    if checkpoint.has_qk_norm:
        q = q * checkpoint.weight("q_norm", layer, device=device)[:, None]
        k = k * checkpoint.weight("k_norm", layer, device=device)[:, None]
    o = checkpoint.weight("o_proj", layer, device=device).mT.unflatten(0, (-1, checkpoint.shape.head_dim))
    return (k, q), (v, centred(checkpoint, o))


def _gain(checkpoint: Checkpoint, family: str, layer: int, device: str) -> torch.Tensor | float:
    return checkpoint.weight(family, layer, device=device) if family in checkpoint.families else 1.0


def centred(checkpoint: Checkpoint, rows: torch.Tensor) -> torch.Tensor:
    """Rows (..., hidden) without their mean where the norm is a LayerNorm, which never sees it."""
    return rows - rows.mean(-1, keepdim=True) if checkpoint.architecture.layer_norm else rows


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """(neuron, hidden) rows scaled to unit length; a zero row stays zero."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / length.where(length > 0, 1.0)
