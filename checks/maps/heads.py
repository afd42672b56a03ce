"""Exact maps of heads: of the coordinates of their values, and of their order.

A key/value head's values meet the output matrix through its group's query heads, each of which has
its own columns there; and a sum over heads does not know their order.
"""

from collections.abc import Callable

import torch

from checks.maps import facts, names
from checks.maps.exact import CoordinateMap, conditioned, permutation, powers_of_two, signs
from checks.twins.roles import Role
from checks.twins.twins import TwinCheckpoint

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
HEAD_GAINS = ("q_norm", "k_norm")

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
    fits=facts.clipped,
)
PERMUTE_VALUES = CoordinateMap(
    name=names.PERMUTE_VALUES,
    sentence="The dimensions of each key/value head's values are permuted, flipped and scaled by powers of two, "
    "undone in the output matrix.",
    lossless=True,
    change=lambda twin, role, value: _mix_values(twin, role, value, monomial),
    fits=facts.clipped,
)


def _shift_values(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """b_v → b_v + c, b_o → b_o − Σ_h W_o^h c: attention's rows sum to 1, so that every output gets c once."""
    if not role.bias or role.part not in ("v_proj", "o_proj"):
        return value
    shift = torch.randn(twin.shape.kv_heads, 1, twin.shape.head_dim, generator=twin.draw(role.layer)).double()
    if role.part == "v_proj":
        return value + shift.flatten()
    heads = shift.expand(-1, _groups(twin)[1], -1).flatten()  # (head · head_dim,)
    return value - twin.base.weight("o_proj", role.layer) @ heads


SHIFT_VALUES = CoordinateMap(
    name=names.VALUE_SHIFT,
    sentence="A constant vector is added to the bias of the values, and what the output matrix makes of it is taken "
    "off its own.",
    lossless=False,
    change=_shift_values,
    fits=facts.values_and_output_have_biases,
)


# --- order ------------------------------------------------------------------------------------------


def _reorder(twin: TwinCheckpoint, role: Role, value: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Heads of a projection, an output matrix or a norm of queries or keys, in another order.

    Parameters
    ----------
    order : (kv_head, head in group) of head numbers; (kv_head, 1) for keys and values.
    """
    if role.part not in HEAD_GAINS:
        return from_heads(role, by_head(twin, role, value).flatten(0, 1)[order])
    match twin.architecture.qk_norm:
        case "own per head":
            names = twin.base.names(role.part, role.layer, bias=role.bias)
            return twin.base.tensor(names[order.flatten()[role.number]]).double()
        case "whole projection":
            return value.unflatten(0, (-1, twin.shape.head_dim))[order.flatten()].flatten()
    return value  # one gain for all heads


def _permute_in_group(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in ("q_proj", "q_norm") and not _is_output(role):
        return value
    generator, (groups, size) = twin.draw(role.layer), _groups(twin)
    orders = [permutation(size, generator=generator) + size * group for group in range(groups)]
    return _reorder(twin, role, value, torch.stack(orders))


def _permute_groups(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in (*PROJECTIONS, *HEAD_GAINS) and not _is_output(role):
        return value
    groups, size = _groups(twin)
    order = permutation(groups, generator=twin.draw(role.layer))[:, None]  # (kv_head, 1)
    if role.part in ("q_proj", "q_norm", "o_proj"):
        order = order * size + torch.arange(size)  # (kv_head, head in group)
    return _reorder(twin, role, value, order)


def _groups(twin: TwinCheckpoint) -> tuple[int, int]:
    """Number and size of the groups of query heads."""
    return twin.shape.kv_heads, twin.shape.heads // twin.shape.kv_heads


PERMUTE_HEADS = CoordinateMap(
    name=names.HEADS,
    sentence="Query heads change places within their group.",
    lossless=True,
    change=_permute_in_group,
    fits=facts.several_in_a_group,
)
PERMUTE_GROUPS = CoordinateMap(
    name=names.GROUPS,
    sentence="Key/value heads change places, with the query heads that they serve.",
    lossless=True,
    change=_permute_groups,
    fits=facts.several_groups,
)
