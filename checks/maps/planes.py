"""Exact maps of queries and keys: they meet only in q·k, after their rotation by position.

Rotary positions turn planes of a head's first r dimensions, so they commute with turns and scalings of those
planes. Where queries and keys are normalised, each norm's scale is free, and turns must pass through its
gains, which the heads of a layer may share. Maps of the dimensions that no position turns are in `queries`.
"""

import math

import torch

from analyses.weights.checkpoint import Checkpoint
from checks.maps import facts, names
from checks.maps.exact import CoordinateMap, powers_of_two, under_qk_norm
from checks.maps.gains import scaled
from checks.maps.heads import by_head, from_heads
from checks.twins.roles import Role
from checks.twins.twins import TwinCheckpoint

QK_GAINS = ("q_norm", "k_norm")


def _in_pairs(checkpoint: Checkpoint) -> bool:
    """Whether planes are the dimensions (2i, 2i + 1) rather than (i, i + r/2)."""
    return checkpoint.architecture.rotary == "pairs"


def _turn(twin: TwinCheckpoint, blocks: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Turn the planes of (kv_head, head in group, head_dim, …); cosine, sine: (kv_head, plane)."""
    planes, pairs = cosine.shape[1], _in_pairs(twin)
    rotated, rest = blocks.tensor_split([2 * planes], dim=2)
    axis = 3 if pairs else 2
    first, second = rotated.unflatten(2, (planes, 2) if pairs else (2, planes)).unbind(axis)
    shape = (len(cosine), 1, planes, *[1] * (first.ndim - 3))  # of (kv_head, head in group, plane, …)
    cosine, sine = cosine.view(shape), sine.view(shape)
    turned = torch.stack([cosine * first - sine * second, sine * first + cosine * second], dim=axis).flatten(2, 3)
    return torch.cat([turned, rest], dim=2)


# --- gains of queries and keys --------------------------------------------------------------------


def _over_dimensions(twin: TwinCheckpoint, by_plane: torch.Tensor, *, beyond: float) -> torch.Tensor:
    """(kv_head, plane) → (kv_head, head_dim): the two dimensions of a plane alike, and `beyond` behind the planes."""
    both = by_plane.repeat_interleave(2, dim=1) if _in_pairs(twin) else torch.cat([by_plane, by_plane], dim=1)
    rest = both.new_full((len(both), twin.shape.head_dim - both.shape[1]), beyond)
    return torch.cat([both, rest], dim=1)


def _one_gain_for_all_heads(checkpoint: Checkpoint) -> bool:
    return checkpoint.has_qk_norm and checkpoint.architecture.qk_norm == "per head"


def _for_gains(twin: TwinCheckpoint, role: Role, by_group: torch.Tensor) -> torch.Tensor:
    """(kv_head or 1, head_dim) → one number for each entry of a q/k norm's gain or bias."""
    if _one_gain_for_all_heads(twin):
        return by_group[0]
    heads = twin.shape.heads if role.part == "q_norm" else twin.shape.kv_heads
    by_head = by_group.repeat_interleave(heads // twin.shape.kv_heads, 0)
    return by_head.flatten() if role.number is None else by_head[role.number]


def _with_partners(twin: TwinCheckpoint, gains: torch.Tensor, planes: int) -> torch.Tensor:
    """A gain of one head or of several, (…·head_dim,), with the two dimensions of every plane exchanged."""
    order = torch.arange(twin.shape.head_dim)
    turned = order[: 2 * planes].clone()
    order[: 2 * planes] = (turned.view(-1, 2).flip(1) if _in_pairs(twin) else turned.view(2, -1).flip(0)).flatten()
    return gains.unflatten(0, (-1, twin.shape.head_dim))[:, order].flatten()


def _matching(checkpoint: Checkpoint, layer: int) -> torch.Tensor:
    """(kv_head, plane) bool: the planes in which no q/k gain of a group tells one direction from another."""
    heads, planes, pairs = checkpoint.shape.kv_heads, facts.planes(checkpoint, layer), _in_pairs(checkpoint)
    matching = torch.ones(heads, planes, dtype=torch.bool)
    for part in QK_GAINS if checkpoint.has_qk_norm else ():
        gains = checkpoint.head_gains(part, layer)[:, : 2 * planes]  # (head, kv_head or 1; 2 · plane)
        first, second = gains.unflatten(1, (planes, 2) if pairs else (2, planes)).unbind(2 if pairs else 1)
        same = first == second
        matching &= same if len(same) == 1 else same.unflatten(0, (heads, -1)).all(1)
    return matching


# --- the maps -------------------------------------------------------------------------------------


def _quarter_turns(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """Multiples of 90°. Where heads share the gains of their norms, they share the odd turns too."""
    if role.part not in ("q_proj", "k_proj", *QK_GAINS) or not (planes := facts.planes(twin, role.layer)):
        return value
    kv_heads = twin.shape.kv_heads
    if _one_gain_for_all_heads(twin):
        odd = torch.randint(2, (planes,), generator=twin.draw("odd", role.layer))  # (plane,)
        turns = odd + 2 * torch.randint(2, (kv_heads, planes), generator=twin.draw("half", role.layer))
    else:
        turns = torch.randint(4, (kv_heads, planes), generator=twin.draw(role.layer))  # (kv_head, plane)
    if role.part in QK_GAINS:
        odd = _for_gains(twin, role, _over_dimensions(twin, turns % 2, beyond=0))
        return torch.where(odd == 1, _with_partners(twin, value, planes), value)
    circle = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
    return from_heads(role, _turn(twin, by_head(twin, role, value), circle[turns], circle[(turns - 1) % 4]))


def _rotate(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in ("q_proj", "k_proj") or not (planes := facts.planes(twin, role.layer)):
        return value
    shape = (twin.shape.kv_heads, planes)
    angle = 2 * math.pi * torch.rand(shape, generator=twin.draw(role.layer), dtype=torch.float64)
    angle = angle * _matching(twin.base, role.layer)
    return from_heads(role, _turn(twin, by_head(twin, role, value), angle.cos(), angle.sin()))


def _some_plane_matches(checkpoint: Checkpoint) -> str | None:
    if any(_matching(checkpoint, layer).any() for layer in range(checkpoint.shape.layers)):
        return None
    return "the gains of the q/k norms match in no rotary plane, so a turn would not pass through them"


def _scale_planes(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """Queries times s, keys divided by it, per plane; under q/k norms their gains, which heads may share."""
    carrier = {"q_norm": 1, "k_norm": -1} if twin.has_qk_norm else {"q_proj": 1, "k_proj": -1}
    if role.part not in carrier or not (planes := facts.planes(twin, role.layer)):
        return value
    heads = 1 if _one_gain_for_all_heads(twin) else twin.shape.kv_heads
    factors = powers_of_two(heads, planes, generator=twin.draw(role.layer)) ** carrier[role.part]
    if twin.has_qk_norm:
        return scaled(twin, role, value, _for_gains(twin, role, _over_dimensions(twin, factors, beyond=1)))
    return from_heads(role, _turn(twin, by_head(twin, role, value), factors, torch.zeros_like(factors)))


def _scale_heads(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """Each query head and each key head by a factor of its own, ≥ 1, which its norm divides out again.

    Where one norm takes all heads of a layer together, all by one factor.
    """
    if role.part not in ("q_proj", "k_proj"):
        return value
    heads = len(value) // twin.shape.head_dim if twin.architecture.qk_norm != "whole projection" else 1
    factors = powers_of_two(heads, generator=twin.draw(role.part, role.layer), least=0)
    factors = factors.repeat_interleave(len(value) // heads)
    return value * (factors if role.bias else factors[:, None])


TURN_PLANES = CoordinateMap(
    name=names.QUARTER_TURNS,
    sentence="Queries and keys are turned by multiples of 90° in each rotary plane, with the gains of their norms.",
    lossless=True,
    change=_quarter_turns,
    fits=facts.some_planes_turn,
)
ROTATE_PLANES = CoordinateMap(
    name=names.ROTATE_PLANES,
    sentence="Queries and keys are turned by the same random angle in each rotary plane in which their gains match.",
    lossless=False,
    change=_rotate,
    fits=facts.some_planes_turn,
    precondition=_some_plane_matches,
)
SCALE_PLANES = CoordinateMap(
    name=names.PLANES,
    sentence="Queries are multiplied by a power of two in each rotary plane and keys divided by it, "
    "on the gains of their norms where there are any.",
    lossless=True,
    change=_scale_planes,
    fits=facts.some_planes,
)
SCALE_HEADS = CoordinateMap(
    name=names.QUERY_KEY,
    sentence="Each query and key head is multiplied by a power of two of its own, which its norm removes.",
    lossless=True,
    eps_limited=under_qk_norm,
    change=_scale_heads,
    fits=facts.qk_normalised,
)
