"""Exact maps of the feed-forward branch, which is a sum over neurons.

down(act(gate x) · up x) is linear in up. Without a gate, down(relu(up x)) takes positive factors, and
down(gelu(up x)) none.
"""

import torch

from checks.maps import facts, names
from checks.maps.exact import CoordinateMap, permutation, powers_of_two, signs
from checks.twins.roles import Role
from checks.twins.twins import TwinCheckpoint


def _scale(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in ("up_proj", "down_proj"):
        return value
    generator, neurons = twin.draw(*_branch(role)), twin.shape.feed_forward
    factors = powers_of_two(neurons, generator=generator)
    if twin.architecture.gated:
        factors = factors * signs(neurons, generator=generator)
    if role.part == "down_proj":
        return value if role.bias else value / factors
    return value * (factors if role.bias else factors[:, None])


def _permute(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in ("gate_proj", "up_proj", "down_proj"):
        return value
    order = permutation(twin.shape.feed_forward, generator=twin.draw(*_branch(role)))
    if role.part == "down_proj":
        return value if role.bias else value[:, order]
    return value[order]


def _branch(role: Role) -> tuple[int | None, ...]:
    """What tells a layer's feed-forward, or one of its experts, from others."""
    return (role.layer,) if role.number is None else (role.layer, role.number)


SCALE_NEURONS = CoordinateMap(
    name=names.SIGNS,
    sentence="Each neuron's up row is multiplied by a power of two and its down column divided by it; where there is a "
    "gate, by one of either sign.",
    lossless=True,
    change=_scale,
    fits=facts.up_is_homogeneous,
)
PERMUTE_NEURONS = CoordinateMap(
    name=names.NEURONS,
    sentence="Neurons change places within their layer.",
    lossless=True,
    change=_permute,
)
