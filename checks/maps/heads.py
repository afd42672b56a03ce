"""Exact maps of heads: of the coordinates of their values, and of their order.

A key/value head's values meet the output matrix through its group's query heads, each of which has
its own columns there; and a sum over heads does not know their order.
"""

from collections.abc import Callable

import torch

from checks.maps import names
from checks.maps.exact import CoordinateMap, conditioned, permutation, powers_of_two, signs
from checks.twins.roles import Role
from checks.twins.twins import TwinCheckpoint

PROJECTIONS = ("q_proj", "k_proj", "v_proj")

Draw = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]  # side → a matrix and its inverse


def by_head(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """(kv_head, head in group, head_dim, hidden) of a projection, without hidden for its bias; o_proj transposed."""
    rows = value.mT if role.part == "o_proj" else value
    return rows.unflatten(0, (twin.shape.kv_heads, -1, twin.shape.head_dim))


def from_heads(role: Role, blocks: torch.Tensor) -> torch.Tensor:
    rows = blocks.flatten(0, 2)
    return rows.mT if role.part == "o_proj" else rows


def _is_output(role: Role) -> bool:
    return role.part == "o_proj" and not role.bias


# --- values ---------------------------------------------------------------------------------------


def _mix_values(twin: TwinCheckpoint, role: Role, value: torch.Tensor, draw: Draw) -> torch.Tensor:
    """W_v^k → M_k W_v^k, and W_o → W_o M_k⁻¹ in the columns of every query head of the group."""
    if role.part != "v_proj" and not _is_output(role):
        return value
    generator = twin.draw(role.layer)
    pairs = [draw(twin.shape.head_dim, generator) for _ in range(twin.shape.kv_heads)]
    blocks = by_head(twin, role, value)
    mixed = [
        torch.tensordot(matrix if role.part == "v_proj" else inverse.mT, block, dims=([1], [1])).movedim(0, 1)
        for (matrix, inverse), block in zip(pairs, blocks, strict=True)
    ]
    return from_heads(role, torch.stack(mixed))


def monomial(side: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A permutation with signs and powers of two, and its exact inverse."""
    factors = powers_of_two(side, generator=generator) * signs(side, generator=generator)
    order = permutation(side, generator=generator)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    matrix[torch.arange(side), order] = factors
    inverse = torch.zeros_like(matrix)
    inverse[order, torch.arange(side)] = 1 / factors
    return matrix, inverse


MIX_VALUES = CoordinateMap(
    name=names.MIX_VALUES,
    sentence="Each key/value head's values pass through a random invertible matrix, undone in the output matrix.",
    lossless=False,
    change=lambda twin, role, value: _mix_values(twin, role, value, conditioned),
)
PERMUTE_VALUES = CoordinateMap(
    name=names.PERMUTE_VALUES,
    sentence="The dimensions of each key/value head's values are permuted, flipped and scaled by powers of two, "
    "undone in the output matrix.",
    lossless=True,
    change=lambda twin, role, value: _mix_values(twin, role, value, monomial),
)


# --- order ------------------------------------------------------------------------------------------


def _permute_in_group(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part != "q_proj" and not _is_output(role):
        return value
    generator, shape = twin.draw(role.layer), twin.shape
    orders = [permutation(shape.heads // shape.kv_heads, generator=generator) for _ in range(shape.kv_heads)]
    blocks = by_head(twin, role, value)
    return from_heads(role, torch.stack([block[order] for block, order in zip(blocks, orders, strict=True)]))


def _permute_groups(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in PROJECTIONS and not _is_output(role):
        return value
    order = permutation(twin.shape.kv_heads, generator=twin.draw(role.layer))
    return from_heads(role, by_head(twin, role, value)[order])


PERMUTE_HEADS = CoordinateMap(
    name=names.HEADS,
    sentence="Query heads change places within their group.",
    lossless=True,
    change=_permute_in_group,
    precondition=lambda c: None if c.shape.heads > c.shape.kv_heads else "every group has one query head only",
)
PERMUTE_GROUPS = CoordinateMap(
    name=names.GROUPS,
    sentence="Key/value heads change places, with the query heads that they serve.",
    lossless=True,
    change=_permute_groups,
    precondition=lambda c: None if c.shape.kv_heads > 1 else "there is one key/value head only",
)
