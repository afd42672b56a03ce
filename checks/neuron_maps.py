"""Exact maps of the feed-forward branch: down(act(gate x) · up x) is linear in up, and sums over neurons."""

import torch

from checks.exact_map import CoordinateMap, permutation, powers_of_two, signs
from checks.roles import Role
from checks.twins import TwinCheckpoint


def _scale(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in ("up_proj", "down_proj"):
        return value
    generator, neurons = twin.draw(role.layer), twin.shape.feed_forward
    factors = powers_of_two(neurons, generator=generator) * signs(neurons, generator=generator)
    if role.part == "down_proj":
        return value if role.bias else value / factors
    return value * (factors if role.bias else factors[:, None])


def _permute(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in ("gate_proj", "up_proj", "down_proj"):
        return value
    order = permutation(twin.shape.feed_forward, generator=twin.draw(role.layer))
    if role.part == "down_proj":
        return value if role.bias else value[:, order]
    return value[order]


SCALE_NEURONS = CoordinateMap(
    name="neuron scaling",
    sentence="Each neuron's up row is multiplied by a power of two of either sign and its down column divided by it.",
    lossless=True,
    change=_scale,
)
PERMUTE_NEURONS = CoordinateMap(
    name="neuron permutation",
    sentence="Neurons change places within their layer.",
    lossless=True,
    change=_permute,
)
