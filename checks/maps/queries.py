"""Exact maps of the dimensions of queries and keys that no position turns.

There q·k knows nothing of the basis: queries may pass through any invertible matrix whose inverse the
keys take. All dimensions of a head are free where positions are added to the stream (GPT-2, OPT), those
beyond the rotated ones where positions turn a part of the head (GPT-NeoX), and all again in a layer without
positions (SmolLM3). A constant vector added to every key adds one number to all of a query's logits, which
the softmax does not see.
"""

from collections.abc import Callable

import torch

from checks.maps import facts, names
from checks.maps.exact import CoordinateMap, conditioned
from checks.maps.heads import by_head, from_heads, monomial
from checks.twins.roles import Role
from checks.twins.twins import TwinCheckpoint

Draw = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]  # side → a matrix and its inverse


def _mix(twin: TwinCheckpoint, role: Role, value: torch.Tensor, draw: Draw) -> torch.Tensor:
    """W_q → M_k W_q and W_k → M_k⁻ᵀ W_k in the free dimensions of each key/value head's group, biases along."""
    if role.part not in ("q_proj", "k_proj"):
        return value
    generator, free = twin.draw(role.layer), facts.free_dimensions(twin, role.layer)
    if free < 2:
        return value
    pairs = [draw(free, generator) for _ in range(twin.shape.kv_heads)]
    mixed = []
    for (matrix, inverse), block in zip(pairs, by_head(twin, role, value), strict=True):
        turned, rest = block.tensor_split([twin.shape.head_dim - free], dim=1)  # (head in group, …, hidden)
        by = matrix if role.part == "q_proj" else inverse.mT
        mixed.append(torch.cat([turned, torch.tensordot(by, rest, dims=([1], [1])).movedim(0, 1)], dim=1))
    return from_heads(role, torch.stack(mixed))


def _shift_keys(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part != "k_proj" or not role.bias:
        return value
    blocks = by_head(twin, role, value).clone()  # (kv_head, 1, head_dim)
    free = blocks[..., twin.rotary_dims(role.layer) :]
    free += torch.randn(free.shape, generator=twin.draw(role.layer), dtype=torch.float64)
    return from_heads(role, blocks)


PERMUTE_QUERIES = CoordinateMap(
    name=names.PERMUTE_QUERIES,
    sentence="The dimensions of queries and keys that no position turns are permuted, flipped and scaled by powers of "
    "two, undone in the keys.",
    lossless=True,
    change=lambda twin, role, value: _mix(twin, role, value, monomial),
    fits=facts.some_free_dimensions,
)
MIX_QUERIES = CoordinateMap(
    name=names.MIX_QUERIES,
    sentence="Queries pass through a random invertible matrix in the dimensions that no position turns, and keys "
    "through its inverse.",
    lossless=False,
    change=lambda twin, role, value: _mix(twin, role, value, conditioned),
    fits=facts.some_free_dimensions,
)
SHIFT_KEYS = CoordinateMap(
    name=names.SHIFT,
    sentence="A constant vector is added to the bias of the keys, in the dimensions that no position turns.",
    lossless=False,
    change=_shift_keys,
    fits=facts.keys_have_a_free_bias,
)
