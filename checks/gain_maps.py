"""Exact maps of norm gains: a gain's factor may as well sit in the matrices that read it."""

import torch

from analyses.checkpoint import Checkpoint
from checks.exact_map import POWERS, CoordinateMap, powers_of_two
from checks.roles import FINAL_GAIN, HEAD, Role, has_own_head
from checks.twins import TwinCheckpoint

READERS = {
    "input_ln": ("q_proj", "k_proj", "v_proj"),
    "post_attn_ln": ("gate_proj", "up_proj"),
    FINAL_GAIN: (HEAD,),
}
"""Gain of a norm → the matrices that read its output, and nothing else does."""

RAMP = 3  # layers per doubling of the input gain in the erratum's example


def gain(checkpoint: Checkpoint, part: str, layer: int | None) -> torch.Tensor:
    """The effective gain, (hidden,) float64, of a layer's norm or of the final one."""
    if part != FINAL_GAIN:
        return checkpoint.weight(part, layer)
    name = checkpoint.prefix + checkpoint.architecture.outside[FINAL_GAIN][0]
    return checkpoint.tensor(name).double() + checkpoint.architecture.gain_offset


def _norm_of(twin: TwinCheckpoint, role: Role) -> str | None:
    """The norm whose gain this tensor is, or whose output it reads; None for others, biases, and tied heads."""
    for norm, readers in READERS.items():
        if not role.bias and role.part in (norm, *readers):
            return norm if norm != FINAL_GAIN or has_own_head(twin) else None
    return None


def _rescale(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if (norm := _norm_of(twin, role)) is None:
        return value
    factors = powers_of_two(twin.shape.hidden, generator=twin.draw(norm, role.layer))  # (hidden,)
    return value * factors if role.part == norm else value / factors


def _fold(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if (norm := _norm_of(twin, role)) is None:
        return value
    if role.part == norm:
        return torch.full_like(value, 1 - twin.architecture.gain_offset)
    return value * gain(twin.base, norm, role.layer)


def _scale_input(twin: TwinCheckpoint, role: Role, value: torch.Tensor, factor: float) -> torch.Tensor:
    if role.part == "input_ln":
        return value * factor
    if role.part == "v_proj" and not role.bias:
        return value / factor
    if role.part in ("q_proj", "k_proj"):
        if not twin.has_qk_norm:
            return value if role.bias else value / factor
        return value * factor if role.bias else value  # the norm divides the whole projection, bias and all, by it
    return value


def _scale_input_at_random(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    least = 0 if twin.has_qk_norm else -POWERS  # larger queries and keys hide their norm's eps, smaller ones show it
    return _scale_input(twin, role, value, float(powers_of_two(1, generator=twin.draw(role.layer), least=least)))


def _scale_input_by_ramp(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    return value if role.layer is None else _scale_input(twin, role, value, 2.0 ** (role.layer // RAMP))


RESCALE_GAINS = CoordinateMap(
    name="gain rescaling",
    sentence="Each channel of each norm gain is multiplied by a power of two, and what reads it divided.",
    lossless=True,
    change=_rescale,
)
FOLD_GAINS = CoordinateMap(
    name="gain folding",
    sentence="Each norm gain is set to 1 and multiplied into the matrices that read it.",
    lossless=False,
    change=_fold,
)
SCALE_INPUT_GAIN = CoordinateMap(
    name="input gain scaling",
    sentence="Each layer's input gain is multiplied by one power of two and the values divided by it; "
    "queries and keys too, unless they are normalised.",
    lossless=True,
    eps_limited=True,
    change=_scale_input_at_random,
)
RAMP_INPUT_GAIN = CoordinateMap(
    name="input gain ramp",
    sentence="The input gain of layer ℓ is multiplied by 2^⌊ℓ/3⌋ and the values divided by it; "
    "queries and keys too, unless they are normalised.",
    lossless=True,
    eps_limited=True,
    change=_scale_input_by_ramp,
    precondition=lambda c: None if c.shape.layers > RAMP else f"{c.shape.layers} layers are too few for a ramp",
)
"""The example of schedule_fit's first erratum: a track that the model's function knows nothing of."""
