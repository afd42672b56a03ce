"""How alike are adjacent layers when neurons and heads may be matched first?

The order of neurons, the order of heads and the scale of many weights are free: they can be
changed without changing the model's function, so a cosine between stored tensors can be 0 for two
layers that compute the same. Here every unit (neuron, head) is put into a form which those exact
maps cannot touch, units are matched by linear assignment, and matched units are compared.

A best matching looks good by construction: 256 unrelated neurons of 128 dimensions reach a mean
cosine of 0.23 on the matrix they were matched on (0.14 if matched on three at once), well above
any threshold for "unrelated". So a family is matched on the *other* matrices of its block and
scored on the one held out, where chance gives 0 whatever the matching.

Forms. Norm gains are folded into the matrices that read the residual stream, and under LayerNorm
all directions are centred. A neuron is its gate row, up row and down column, each of unit length;
up and down may change sign together. A head is its maps g = W_kᵀW_q (with q/k-norm gains) and
W_oW_v, whose inner products need only d×d products: ⟨g, g'⟩ = Σ (W_kW_k'ᵀ)∘(W_qW_q'ᵀ).
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from analyses.checkpoint import Checkpoint

FEED_FORWARD = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
ROLES = ("gate", "up", "down", "qk", "vo")
NEURONS = 4096  # of a wider layer, those with the longest first rows are matched into all of the next layer's


def matched_cosines(checkpoint: Checkpoint, *, device: str) -> list[dict[str, float | None]]:
    """Mean cosine of matched units per adjacent pair: role → value in [−1, 1], None if no unit lives.

    Roles are those of ROLES that the architecture has: a lone matrix has nothing to be matched on.
    """
    streams = [s for s in (_neuron_pairs(checkpoint, device), _head_pairs(checkpoint, device)) if s is not None]
    return [{role: value for part in parts for role, value in part.items()} for parts in zip(*streams, strict=True)]


# --- one pair of blocks -------------------------------------------------------------------------


def score_neurons(cosines: Mapping[str, torch.Tensor]) -> dict[str, float | None]:
    """Mean cosine of matched neurons, per matrix held out.

    Parameters
    ----------
    cosines : "gate" (where there is one), "up", "down" → (neuron, neuron') cosines, float64. Up and
        down share a free sign per neuron, so only products of the two, or magnitudes, may be used.

    Returns
    -------
    gate is matched on up·down; up on gate + |down|, with its sign from down; down likewise.
    """
    gate, up, down = cosines.get("gate"), cosines["up"], cosines["down"]
    found = gate if gate is not None else torch.zeros_like(up)
    result = {"up": _held_out(found + down.abs(), up * down.sign()), "down": _held_out(found + up.abs(), down * up.sign())}
    return result if gate is None else {"gate": _held_out(up * down, gate)} | result


def score_heads(qk: torch.Tensor, vo: torch.Tensor) -> dict[str, float | None]:
    """Mean cosine of matched heads, from (head, head') cosines; each map is matched on the other."""
    return {"qk": _held_out(vo, qk), "vo": _held_out(qk, vo)}


def _held_out(found: torch.Tensor, scored: torch.Tensor) -> float | None:
    if not found.numel():
        return None
    rows, columns = linear_sum_assignment(found.cpu().numpy(), maximize=True)
    return float(np.mean(scored.cpu().numpy()[rows, columns]))


def product_cosines(
    a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosines between the maps leftᵀ·right of two layers' heads, without forming a map.

    Parameters
    ----------
    a, b : (left, right) of a layer: left (kv_head, head_dim, hidden), shared by the query heads of
        a group, and right (head, head_dim, hidden), float64.

    Returns
    -------
    (head, head') cosines, 0 for an all-zero head; (head,) and (head',) which heads are not zero.
    """
    norm_a, norm_b = _product_norms(*a), _product_norms(*b)
    (kv, dim, _), heads = a[0].shape, a[1].shape[0]
    group = heads // kv
    left = (a[0].flatten(0, 1) @ b[0].flatten(0, 1).mT).view(kv, 1, dim, kv, 1, dim)
    right = (a[1].flatten(0, 1) @ b[1].flatten(0, 1).mT).view(kv, group, dim, kv, group, dim)
    inner = (left * right).sum((2, 5)).reshape(heads, heads)  # (head, head')
    scale = norm_a[:, None] * norm_b
    return torch.where(scale > 0, inner / scale.where(scale > 0, 1.0), 0.0), norm_a > 0, norm_b > 0


def _product_norms(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """‖leftᵀ·right‖_F per query head, (head,)."""
    gram_left = (left @ left.mT).repeat_interleave(right.shape[0] // left.shape[0], dim=0)  # (head, dim, dim)
    return (gram_left * (right @ right.mT)).sum((-2, -1)).clamp_min(0).sqrt()


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """(neuron, hidden) rows scaled to unit length; a zero row stays zero."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / length.where(length > 0, 1.0)


# --- streaming over layers ----------------------------------------------------------------------


def _neuron_pairs(checkpoint: Checkpoint, device: str) -> Iterator[dict[str, float | None]] | None:
    roles = [role for role, family in FEED_FORWARD.items() if family in checkpoint.families]
    return _stream_neurons(checkpoint, roles, device) if {"up", "down"} <= set(roles) else None


def _stream_neurons(checkpoint: Checkpoint, roles: list[str], device: str) -> Iterator[dict[str, float | None]]:
    """Holds one matrix of the new layer and at most NEURONS units of the old."""
    kept: dict[str, torch.Tensor] = {}  # role → (neuron, hidden) unit rows of the layer before
    for layer in range(checkpoint.shape.layers):
        cosines, chosen, alive = {}, None, True
        new: dict[str, torch.Tensor] = {}
        for role in roles:
            rows = _neuron_rows(checkpoint, role, layer, device)
            length = torch.linalg.vector_norm(rows, dim=-1)
            alive = alive & (length > 0)
            if chosen is None:
                chosen = length.argsort(descending=True, stable=True)[:NEURONS]
            rows = unit_rows(rows)
            if kept:
                cosines[role] = kept[role] @ rows.mT
            new[role] = rows[chosen]
        if kept:
            old = torch.stack([r.any(-1) for r in kept.values()]).all(0)
            yield score_neurons({role: value[old][:, alive] for role, value in cosines.items()})
        kept = new


def _neuron_rows(checkpoint: Checkpoint, role: str, layer: int, device: str) -> torch.Tensor:
    """(neuron, hidden): rows of gate and up as they read the stream, columns of down."""
    weight = checkpoint.weight(FEED_FORWARD[role], layer, device=device)
    if role == "down":
        return centred(checkpoint, weight.mT)
    return centred(checkpoint, weight * _gain(checkpoint, "post_attn_ln", layer, device))


def _head_pairs(checkpoint: Checkpoint, device: str) -> Iterator[dict[str, float | None]] | None:
    wanted = {"q_proj", "k_proj", "v_proj", "o_proj"}
    return _stream_heads(checkpoint, device) if wanted <= set(checkpoint.families) else None


def _stream_heads(checkpoint: Checkpoint, device: str) -> Iterator[dict[str, float | None]]:
    before = None
    for layer in range(checkpoint.shape.layers):
        now = _head_factors(checkpoint, layer, device)
        if before is not None:
            qk, qk_old, qk_new = product_cosines(before[0], now[0])
            vo, vo_old, vo_new = product_cosines(before[1], now[1])
            old, new = qk_old & vo_old, qk_new & vo_new
            yield score_heads(qk[old][:, new], vo[old][:, new])
        before = now


def _head_factors(
    checkpoint: Checkpoint, layer: int, device: str
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """((W_k, W_q), (W_v, W_oᵀ)) by head, (kv_head or head, head_dim, hidden), with all gains folded in."""
    gain = _gain(checkpoint, "input_ln", layer, device)
    q, k, v = (centred(checkpoint, checkpoint.head_blocks(f, layer, device=device) * gain) for f in ("q_proj", "k_proj", "v_proj"))
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
