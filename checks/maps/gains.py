"""Exact maps of norm gains: a gain's factor may as well sit in the matrices that read it.

A LayerNorm's bias goes with its gain. A gain that is stored less one (Gemma) keeps no power of two: its
twin comes out in float64 where the stored dtype cannot hold it.
"""

import torch

from analyses.weights.checkpoint import Checkpoint
from analyses.weights.schema import GAINS
from checks.maps import names
from checks.maps.exact import POWERS, CoordinateMap, powers_of_two, under_qk_norm
from checks.twins.roles import FINAL_GAIN, HEAD, Role, has_own_head
from checks.twins.twins import TwinCheckpoint

ATTENTION = ("q_proj", "k_proj", "v_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "router")
NORMS = ("input_ln", "post_attn_ln", FINAL_GAIN)  # of which a layer may lack one, or all
PROJECT_OUT = "project_out"  # of a stream that is wider than the embedding
RAMP = 3  # layers per doubling of the input gain in the erratum's example


def readers(checkpoint: Checkpoint, norm: str) -> tuple[str, ...]:
    """The matrices that read this norm's output; () where it has no gain, or something else may read it."""
    if norm == FINAL_GAIN:
        if not stored_outside(checkpoint, FINAL_GAIN):
            return ()
        if stored_outside(checkpoint, PROJECT_OUT):
            return (PROJECT_OUT,)
        return (HEAD,) if has_own_head(checkpoint) else ()
    if (
        norm not in checkpoint.places or checkpoint.architecture.post_norm
    ):  # the stream itself goes on behind the latter
        return ()
    behind = ATTENTION if norm == "input_ln" else ()
    return behind + (FEED_FORWARD if checkpoint.architecture.feed_forward_norm == norm else ())


def stored_outside(checkpoint: Checkpoint, part: str) -> bool:
    """Whether a checkpoint stores this part beside the layers."""
    return any(checkpoint.prefix + name in checkpoint.files for name in checkpoint.architecture.outside.get(part, ()))


def gain(checkpoint: Checkpoint, part: str, layer: int | None) -> torch.Tensor:
    """The effective gain, (hidden,) float64, of a layer's norm or of the final one."""
    if layer is None:
        value = checkpoint.tensor(checkpoint.prefix + checkpoint.architecture.outside[part][0]).double()
    elif part in GAINS:
        return checkpoint.weight(part, layer)
    else:
        value = checkpoint.tensor(checkpoint.names(part, layer)[0]).double()
    return value + checkpoint.architecture.gain_offset


def scaled(twin: TwinCheckpoint, role: Role, value: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    """A norm's stored gain, or its bias, for `factor` times the norm's output."""
    offset = 0.0 if role.bias else twin.architecture.gain_offset
    return (value + offset) * factor - offset


def _norm_of(twin: TwinCheckpoint, role: Role) -> str | None:
    """The norm whose gain or bias this tensor is, or whose output it reads; None for others, and for tied heads."""
    for norm in NORMS:
        read = readers(twin, norm)
        if read and (role.part == norm or (role.part in read and not role.bias)):
            return norm
    return None


def _rescale(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if (norm := _norm_of(twin, role)) is None:
        return value
    factors = powers_of_two(twin.shape.hidden, generator=twin.draw(norm, role.layer))  # (hidden,)
    return scaled(twin, role, value, factors) if role.part == norm else value / factors


def _fold(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if (norm := _norm_of(twin, role)) is None:
        return value
    if role.part == norm and not role.bias:
        return torch.full_like(value, 1 - twin.architecture.gain_offset)
    factors = gain(twin.base, norm, role.layer)
    return value / factors if role.part == norm else value * factors


def _some_gain_can_move(checkpoint: Checkpoint) -> str | None:
    if any(readers(checkpoint, norm) for norm in NORMS):
        return None
    return "no norm has a gain that the matrices behind it could take up"


def _no_gain_is_zero(checkpoint: Checkpoint) -> str | None:
    """Why a LayerNorm's bias cannot be divided by its gain."""
    if not checkpoint.architecture.layer_norm:
        return None
    layers = range(checkpoint.shape.layers)
    places = [(n, layer) for n in NORMS if readers(checkpoint, n) for layer in ([None] if n == FINAL_GAIN else layers)]
    zero = [norm for norm, layer in places if (gain(checkpoint, norm, layer) == 0).any()]
    return f"a gain of {zero[0]} is 0 and its bias is not, which no matrix can take up" if zero else None


def _attention_has_a_gain(checkpoint: Checkpoint) -> str | None:
    return None if readers(checkpoint, "input_ln") else "no gain stands in front of attention alone"


def _enough_for_a_ramp(checkpoint: Checkpoint) -> str | None:
    if checkpoint.shape.layers <= RAMP:
        return f"{checkpoint.shape.layers} layers are too few for a ramp"
    return _attention_has_a_gain(checkpoint)


def _scale_input(twin: TwinCheckpoint, role: Role, value: torch.Tensor, factor: float) -> torch.Tensor:
    if role.part == "input_ln":
        return scaled(twin, role, value, factor)
    if role.part in ("q_proj", "k_proj") and twin.has_qk_norm:
        return value * factor if role.bias else value  # the norm divides the whole projection, bias and all, by it
    return value / factor if role.part in readers(twin, "input_ln") and not role.bias else value


def _scale_input_at_random(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.layer is None:
        return value
    least = 0 if twin.has_qk_norm else -POWERS  # larger queries and keys hide their norm's eps, smaller ones show it
    return _scale_input(twin, role, value, float(powers_of_two(1, generator=twin.draw(role.layer), least=least)))


def _scale_input_by_ramp(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    return value if role.layer is None else _scale_input(twin, role, value, 2.0 ** (role.layer // RAMP))


def single_channel(norm: str, *, exponent: int) -> CoordinateMap:
    """One channel of one kind of norm gain, the same in every layer, times 2^exponent; what reads it divided.

    A witness: it says how far a number read off stored matrices can be driven. Which channel is drawn by the seed.
    """

    def change(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
        if _norm_of(twin, role) != norm:
            return value
        factors = torch.ones(twin.shape.hidden, dtype=torch.float64)
        factors[torch.randint(twin.shape.hidden, (1,), generator=twin.draw(norm))] = 2.0**exponent
        return scaled(twin, role, value, factors) if role.part == norm else value / factors

    return CoordinateMap(
        name=f"single channel of {norm} by 2^{exponent}",
        sentence=f"One channel of the gain {norm} is multiplied by 2^{exponent} in every layer, what reads it divided.",
        lossless=True,
        change=change,
        fits=lambda c: None if readers(c, norm) else f"no gain {norm} that the matrices behind it could take up",
        case_of=(names.RESCALE,),
    )


RESCALE_GAINS = CoordinateMap(
    name=names.RESCALE,
    sentence="Each channel of each norm gain is multiplied by a power of two, and what reads it divided.",
    lossless=True,
    change=_rescale,
    fits=_some_gain_can_move,
)
FOLD_GAINS = CoordinateMap(
    name=names.FOLD,
    sentence="Each norm gain is set to 1 and multiplied into the matrices that read it.",
    lossless=False,
    change=_fold,
    fits=_some_gain_can_move,
    precondition=_no_gain_is_zero,
)
SCALE_INPUT_GAIN = CoordinateMap(
    name=names.SCALE,
    sentence="Each layer's input gain is multiplied by one power of two and the values divided by it; "
    "queries and keys too, unless they are normalised.",
    lossless=True,
    eps_limited=under_qk_norm,
    change=_scale_input_at_random,
    fits=_attention_has_a_gain,
)
RAMP_INPUT_GAIN = CoordinateMap(
    name=names.RAMP,
    sentence="The input gain of layer ℓ is multiplied by 2^⌊ℓ/3⌋ and the values divided by it; "
    "queries and keys too, unless they are normalised.",
    lossless=True,
    eps_limited=under_qk_norm,
    change=_scale_input_by_ramp,
    fits=_enough_for_a_ramp,
)
"""The example of schedule_fit's first erratum: a track that the model's function knows nothing of."""
