"""An exact ramp over depth: in every layer, each factor that is free anywhere grows by 2 every third layer.

It is what schedules of stored scales can be made of without a trace in the model's function: norms of all families
rise or fall together along it. Built of the factors that other maps draw at random, and no map of its own.
"""

import torch

from analyses.weights.checkpoint import Checkpoint
from checks.maps import facts, names
from checks.maps.exact import CoordinateMap, under_qk_norm
from checks.maps.gains import RAMP, readers, scaled
from checks.twins.roles import Role
from checks.twins.twins import TwinCheckpoint

GAINS = ("input_ln", "post_attn_ln")
VALUES = {"v_proj": -1, "o_proj": 1}
NEURONS = {"up_proj": -1, "down_proj": 1}
NORMALISED = {"q_norm": 1, "k_norm": -1}


def exponent(checkpoint: Checkpoint, role: Role) -> int:
    """By how many powers of the layer's factor a stored tensor is multiplied."""
    part, read = role.part, {norm: readers(checkpoint, norm) for norm in GAINS}
    total = sum(part == norm for norm in GAINS if read[norm])
    if not role.bias:
        total -= sum(part in read[norm] for norm in GAINS)
    if facts.clipped(checkpoint) is None and not (part == "o_proj" and role.bias):
        total += VALUES.get(part, 0)
    if facts.up_is_homogeneous(checkpoint) is None and not (part == "down_proj" and role.bias):
        total += NEURONS.get(part, 0)
    if checkpoint.has_qk_norm:
        total += NORMALISED.get(part, 0)
        if part in ("q_proj", "k_proj"):
            total = 1 + role.bias * bool(read["input_ln"])  # a norm takes it off; larger ones hide its eps
    return total


def _ramp(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.layer is None:
        return value
    factor = 2.0 ** (exponent(twin, role) * (role.layer // RAMP))
    return scaled(twin, role, value, factor) if role.is_gain else value * factor


def _enough(checkpoint: Checkpoint) -> str | None:
    layers = checkpoint.shape.layers
    return None if layers > RAMP else f"{layers} layers are too few for a ramp"


RAMP_ALL = CoordinateMap(
    name="ramp of all scales",
    sentence="In layer ℓ every factor that is free, of gains, values, neurons, queries and keys, is 2^⌊ℓ/3⌋.",
    lossless=True,
    eps_limited=under_qk_norm,
    change=_ramp,
    fits=_enough,
    case_of=(names.RESCALE, names.SCALE, names.RAMP, *names.VALUES, names.SIGNS, names.PLANES, names.QUERY_KEY),
)
