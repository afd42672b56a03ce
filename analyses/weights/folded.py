"""Folded readers: queries and keys as they read the stream, whatever coordinates a model is stored in.

W̃ = W·diag(γ) takes up the gain γ of the norm before it (under LayerNorm its rows are centred, since the norm takes a
constant off). Norms of queries and keys take off the size of a projection: each head's W̃ is then divided by its
Frobenius norm (all heads by the norm of all, where one norm spans the projection), and the q/k norms' own gains, which
come after, are multiplied in. What is left of a head, g̃ = W̃_kᵀ W̃_q and P = W_o W̃_v, no exact map touches but those of
the stream's basis, under which inner products stay.

Where the stream itself is normalised (post-norm), its channels carry the gain of the norm that made it, and a reader is
taken as it is: the factor of a whole layer's gain is then free, so that sizes of g̃ and P say nothing. Where a norm
stands behind the attention branch, it takes off the size of P.
"""

from typing import NamedTuple

import numpy as np
import torch

from analyses.weights import planes
from analyses.weights.canonical import centred, qk_gain, read_by_heads
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.planes import STILL, Turns
from analyses.weights.positions import turns


class Folded(NamedTuple):
    """One layer's folded queries and keys, float64. A head that is all zero stays zero."""

    keys: torch.Tensor  # (kv_head, head_dim, hidden)
    queries: torch.Tensor  # (head, head_dim, hidden)
    turns: Turns = STILL  # how positions turn them

    def parts(self) -> list[planes.Part]:
        return planes.parts(*self)


def folded_readers(checkpoint: Checkpoint, layer: int, *, device: str) -> Folded:
    """W̃_k and W̃_q of every head of a layer.

    Raises InputError if a weight is NaN or infinite.
    """
    queries, keys = (read_by_heads(checkpoint, family, layer, device) for family in ("q_proj", "k_proj"))
    if checkpoint.has_qk_norm:
        group = len(queries) // len(keys)
        query_norms, key_norms = (rows.norm(dim=(-2, -1), keepdim=True) for rows in (queries, keys))
        if checkpoint.architecture.qk_norm == "whole projection":  # which cancels the size of all heads together
            query_norms = query_norms.norm().expand_as(query_norms)
            key_norms = key_norms.repeat_interleave(group, 0).norm().expand_as(key_norms)
        # The norms cancel the size of W_q x and W_k x, not that of their own gains, which come after.
        queries = _unit(queries, query_norms) * qk_gain(checkpoint, "q_proj", layer, len(queries), device)
        keys = _unit(keys, key_norms) * qk_gain(checkpoint, "k_proj", layer, len(keys), device)
    return Folded(keys, queries, turns(checkpoint, layer))


def _unit(rows: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    return rows / norms.where(norms > 0, 1.0)


def head_scales(checkpoint: Checkpoint, *, device: str = "cpu") -> dict[str, np.ndarray]:
    """Sizes of a layer's heads, for tracks over depth.

    Returns
    -------
    "qk" → (layer,) root mean square over heads of ‖g̃‖, itself a root mean square over all distances (under q/k norms
    of scale-free heads, so that what varies is the norms' gains and the heads' spectra); "ov" → (layer,) root mean
    square over heads of ‖P‖_F, free by one factor for the whole model, that of the stream. float64, ≥ 0. One that
    `scales_absent` names is left out.
    """
    absent = scales_absent(checkpoint)
    measures = {"qk": _query_key_scale, "ov": _output_value_scale}
    layers = range(checkpoint.shape.layers)
    return {
        name: np.array([measure(checkpoint, layer, device) for layer in layers])
        for name, measure in measures.items()
        if name not in absent
    }


def scales_absent(checkpoint: Checkpoint) -> dict[str, str]:
    """Track of `head_scales` that this checkpoint has not → why."""
    absent = {}
    for name, families in (("qk", ("q_proj", "k_proj")), ("ov", ("v_proj", "o_proj"))):
        if missing := [family for family in families if family not in checkpoint.families]:
            absent[name] = f"{missing[0]}: {checkpoint.absent[missing[0]]}"
        elif checkpoint.architecture.post_norm:
            absent[name] = "the stream carries the gain of the norm that made it, whose size is free"
    if "ov" not in absent and "attn_out_ln" in checkpoint.places:
        absent["ov"] = "a norm behind the attention branch takes off the size of what it writes"
    return absent


def _query_key_scale(checkpoint: Checkpoint, layer: int, device: str) -> float:
    return _root_mean_square(planes.norms(folded_readers(checkpoint, layer, device=device).parts()))


def _output_value_scale(checkpoint: Checkpoint, layer: int, device: str) -> float:
    values = read_by_heads(checkpoint, "v_proj", layer, device)  # (kv_head, head_dim, hidden)
    output = checkpoint.weight("o_proj", layer, device=device).mT.unflatten(0, (-1, values.shape[1]))
    output = centred(checkpoint, output)  # (head, head_dim, hidden)
    inner = (values @ values.mT).repeat_interleave(len(output) // len(values), dim=0)
    return _root_mean_square((inner * (output @ output.mT)).sum((-2, -1)).clamp_min(0).sqrt())


def _root_mean_square(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())
