"""Queries, keys and values of latent attention, as the products of their factors.

A latent c = γ∘norm(W_down n) of the normed stream n stands between two matrices, so that of a head

    W_q = W_up·diag(γ)·W_down,  and likewise of the keys and values that share one latent,

up to the size of W_down n, which the norm takes off for each token. The dimensions of queries that positions turn come
from the same product; those of keys are rows of W_down alone, the same for all heads and behind no norm. Here they
come first in a head, as in other families, and those that stand still behind them.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from analyses.weights.schema import Place
from analyses.weights.shape import Shape

FAMILIES = ("q_proj", "k_proj", "v_proj")


class Factors(Protocol):
    """What is asked of a checkpoint here."""

    config: Mapping[str, Any]
    shape: Shape
    places: Mapping[str, Place]

    def rotary_dims(self, layer: int) -> int: ...

    def factor(self, role: str, layer: int, *, device: str = "cpu") -> torch.Tensor: ...


def rows(
    checkpoint: Factors, family: str, layer: int, device: str, *, gain: torch.Tensor | None = None
) -> torch.Tensor:
    """(head·dim, hidden) float64 of q_proj, k_proj or v_proj.

    Parameters
    ----------
    gain : (hidden,) of the norm in front, to be folded in; W_down·diag(gain) is then brought to the size √rank, as the
        norm of the latent does to a stream that is alike in all directions.
    """
    shape = checkpoint.shape
    turned = checkpoint.rotary_dims(layer) or checkpoint.config["qk_rope_head_dim"]
    up = _factor(checkpoint, family, layer, device)
    if family == "q_proj":
        through = "q_down" in checkpoint.places
        product = _through(checkpoint, up, "q_down", "q_latent_ln", layer, device, gain) if through else up
        if gain is not None and not through:
            product = product * gain
        heads = product.unflatten(0, (shape.heads, shape.head_dim))
        return torch.cat([heads[:, -turned:], heads[:, :-turned]], 1).flatten(0, 1)
    still = shape.head_dim - turned
    product = _through(checkpoint, up, "kv_down", "kv_latent_ln", layer, device, gain)
    heads = product.unflatten(0, (shape.heads, still + shape.value_dim))
    if family == "v_proj":
        return heads[:, still:].flatten(0, 1)
    shared = _factor(checkpoint, "kv_down", layer, device)[-turned:]
    if gain is not None:
        shared = shared * gain
    return torch.cat([shared.expand(shape.heads, -1, -1), heads[:, :still]], 1).flatten(0, 1)


def _factor(checkpoint: Factors, role: str, layer: int, device: str) -> torch.Tensor:
    return checkpoint.factor(role, layer, device=device)


def _through(
    checkpoint: Factors,
    up: torch.Tensor,
    down: str,
    norm: str,
    layer: int,
    device: str,
    gain: torch.Tensor | None,
) -> torch.Tensor:
    """W_up·diag(γ)·W_down, of the rows of W_down that the latent is made of."""
    rank = up.shape[1]
    inner = _factor(checkpoint, down, layer, device)[:rank]
    if gain is not None:
        inner = inner * gain
        size = torch.linalg.matrix_norm(inner)
        inner = inner * (rank**0.5 / size if size > 0 else 0.0)
    return (up * _factor(checkpoint, norm, layer, device)) @ inner


def stored_rows(family: str, heads: int, head_dim: int, value_dim: int, turned: int) -> int:
    """Rows of the stored factor that holds a family."""
    return heads * (head_dim if family == "q_proj" else head_dim - turned + value_dim)
