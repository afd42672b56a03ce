"""Exact maps of queries and keys: they meet only in q·k, after their rotation by position.

Rotary positions turn the planes (i, i + r/2) of a head's first r dimensions, so they commute with turns
and scalings of those planes. Where queries and keys are normalised, each head's scale is free, and
turns must pass through the norms' gains, which all heads of a layer share. Maps of the dimensions
that no position turns are in `queries`.
"""

import math

import torch

from analyses.weights.checkpoint import Checkpoint
from checks.maps import names
from checks.maps.exact import CoordinateMap, powers_of_two, under_qk_norm
from checks.maps.heads import by_head, from_heads
from checks.twins.roles import Role
from checks.twins.twins import TwinCheckpoint

QK_GAINS = ("q_norm", "k_norm")


def _turn(blocks: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Turn the planes (i, i + r/2) of (kv_head, head in group, head_dim, …); cosine, sine: (kv_head, plane)."""
    rotated, rest = blocks.tensor_split([2 * cosine.shape[1]], dim=2)
    first, second = rotated.unflatten(2, (2, -1)).unbind(2)  # (kv_head, head in group, plane, …)
    shape = (len(cosine), 1, cosine.shape[1], *[1] * (first.ndim - 3))
    cosine, sine = cosine.view(shape), sine.view(shape)
    return torch.cat([cosine * first - sine * second, sine * first + cosine * second, rest], dim=2)


def _planes(checkpoint: Checkpoint) -> int:
    return checkpoint.rotary_dims(0) // 2


def _some_plane(checkpoint: Checkpoint) -> str | None:
    if checkpoint.architecture.rotary == "halves" and _planes(checkpoint):
        return None
    return "positions turn no planes of queries and keys"


def _quarter_turns(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """Multiples of 90°. Under q/k norms the heads share their gains, so they share the odd turns too."""
    kv_heads, planes = twin.shape.kv_heads, _planes(twin)
    if twin.has_qk_norm:
        odd = torch.randint(2, (planes,), generator=twin.draw("odd", role.layer))  # (plane,)
        if role.part in QK_GAINS:
            first, second = value.unflatten(0, (2, -1))
            return torch.cat([torch.where(odd == 1, second, first), torch.where(odd == 1, first, second)])
        turns = odd + 2 * torch.randint(2, (kv_heads, planes), generator=twin.draw("half", role.layer))
    else:
        turns = torch.randint(4, (kv_heads, planes), generator=twin.draw(role.layer))  # (kv_head, plane)
    if role.part not in ("q_proj", "k_proj"):
        return value
    circle = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
    return from_heads(role, _turn(by_head(twin, role, value), circle[turns], circle[(turns - 1) % 4]))


def _matching(checkpoint: Checkpoint, layer: int) -> torch.Tensor:
    """(plane,) bool: the planes in which neither q/k gain tells one direction from another."""
    halves = [checkpoint.weight(part, layer).unflatten(0, (2, -1)) for part in QK_GAINS if checkpoint.has_qk_norm]
    return torch.stack([torch.ones(_planes(checkpoint), dtype=torch.bool), *(h[0] == h[1] for h in halves)]).all(0)


def _rotate(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in ("q_proj", "k_proj"):
        return value
    shape = (twin.shape.kv_heads, _planes(twin))
    angle = 2 * math.pi * torch.rand(shape, generator=twin.draw(role.layer), dtype=torch.float64)
    angle = angle * _matching(twin.base, role.layer)
    return from_heads(role, _turn(by_head(twin, role, value), angle.cos(), angle.sin()))


def _some_plane_matches(checkpoint: Checkpoint) -> str | None:
    if reason := _some_plane(checkpoint):
        return reason
    if any(_matching(checkpoint, layer).any() for layer in range(checkpoint.shape.layers)):
        return None
    return "the gains of the q/k norms match in no rotary plane, so a turn would not pass through them"


def _scale_planes(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """Queries times s, keys divided by it, per plane; under q/k norms their gains, which all heads share."""
    carrier = {"q_norm": 1, "k_norm": -1} if twin.has_qk_norm else {"q_proj": 1, "k_proj": -1}
    if role.part not in carrier:
        return value
    heads = 1 if twin.has_qk_norm else twin.shape.kv_heads
    factors = powers_of_two(heads, _planes(twin), generator=twin.draw(role.layer)) ** carrier[role.part]
    if twin.has_qk_norm:
        return value * factors[0].repeat(2)
    return from_heads(role, _turn(by_head(twin, role, value), factors, torch.zeros_like(factors)))


def _scale_heads(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """Each query head and each key head by a factor of its own, ≥ 1, which its norm divides out again."""
    if role.part not in ("q_proj", "k_proj"):
        return value
    heads = len(value) // twin.shape.head_dim
    factors = powers_of_two(heads, generator=twin.draw(role.part, role.layer), least=0)
    factors = factors.repeat_interleave(twin.shape.head_dim)
    return value * (factors if role.bias else factors[:, None])


TURN_PLANES = CoordinateMap(
    name=names.QUARTER_TURNS,
    sentence="Queries and keys are turned by multiples of 90° in each rotary plane, with the gains of their norms.",
    lossless=True,
    change=_quarter_turns,
    precondition=_some_plane,
)
ROTATE_PLANES = CoordinateMap(
    name=names.ROTATE_PLANES,
    sentence="Queries and keys are turned by the same random angle in each rotary plane in which their gains match.",
    lossless=False,
    change=_rotate,
    precondition=_some_plane_matches,
)
SCALE_PLANES = CoordinateMap(
    name=names.PLANES,
    sentence="Queries are multiplied by a power of two in each rotary plane and keys divided by it, "
    "on the gains of their norms where there are any.",
    lossless=True,
    change=_scale_planes,
    precondition=_some_plane,
)
SCALE_HEADS = CoordinateMap(
    name=names.QUERY_KEY,
    sentence="Each query and key head is multiplied by a power of two of its own, which its norm removes.",
    lossless=True,
    eps_limited=under_qk_norm,
    change=_scale_heads,
    precondition=lambda c: None if c.has_qk_norm else "queries and keys are not normalised, so their scale matters",
)
