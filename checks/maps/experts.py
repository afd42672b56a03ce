"""Exact maps of a choice of experts: a softmax router knows neither a common logit nor the order of its rows.

The weights of the chosen experts are probabilities of a softmax over all, renormalised or not; either way a number
that every expert's logit gets cancels, and the sum over experts has no order. Under a sigmoid, which none of the
architectures here has, the common number would matter.
"""

import torch

from checks.maps import facts, names
from checks.maps.exact import CoordinateMap, permutation
from checks.twins.roles import Role
from checks.twins.twins import TwinCheckpoint

ROUTER = "router"
EXPERT = ("gate_proj", "up_proj", "down_proj")


def _shift(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """W_r → W_r + 1 uᵀ: every expert's logit gets ⟨u, x⟩."""
    if role.part != ROUTER:
        return value
    size = value.square().mean().sqrt()
    return value + size * torch.randn(value.shape[-1], generator=twin.draw(role.layer), dtype=torch.float64)


def _permute(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part != ROUTER and role.part not in EXPERT:
        return value
    order = permutation(twin.shape.experts, generator=twin.draw(role.layer))
    if role.part == ROUTER:
        return value[order]
    return twin.base.weight(role.part, role.layer, expert=int(order[role.number]))


SHIFT_ROUTER = CoordinateMap(
    name=names.ROUTER,
    sentence="A common vector is added to all rows of each router, which its softmax does not see.",
    lossless=False,
    change=_shift,
    fits=facts.has_experts,
)
PERMUTE_EXPERTS = CoordinateMap(
    name=names.EXPERTS,
    sentence="Experts change places within their layer, and the rows of the router with them.",
    lossless=True,
    change=_permute,
    fits=facts.has_experts,
)
