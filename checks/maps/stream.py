"""Exact maps of the residual stream: one change of basis for all that writes it and all that reads it.

RMSNorm commutes with permutations and sign flips if its gains are permuted along; with any rotation only where
every gain is uniform, as it is after folding. LayerNorm takes off the mean over channels, and so commutes with
permutations and, its gains uniform, with the rotations that leave that mean alone: those that fix the vector
(1, …, 1). Folding empties every gain but the final one of a tied model, whose head cannot take it up, and those
of norms behind a branch. A norm in front of a branch takes off the stream's scale, a norm behind it the
branch's, and a LayerNorm whatever constant was written to all channels.
"""

from functools import lru_cache

import torch

from analyses.numerics import spectra
from analyses.weights.checkpoint import Checkpoint
from checks.maps import facts, names
from checks.maps.exact import CoordinateMap, compose, permutation, powers_of_two, signs
from checks.maps.gains import ATTENTION, FEED_FORWARD, FOLD_GAINS, NORMS, PROJECT_OUT, gain, scaled, stored_outside
from checks.twins.roles import EMBEDDING, FINAL_GAIN, HEAD, Role, is_tied
from checks.twins.twins import TwinCheckpoint, generator

PROJECT_IN, TRANSFORM = "project_in", "head_transform"
# Hidden is the last axis of these: they read the stream, or are rows of it.
READS = (*ATTENTION, *FEED_FORWARD, PROJECT_OUT, "positions", "token_types", "pooler", TRANSFORM)
BRANCHES = ("o_proj", "down_proj")
WRITES = (*BRANCHES, PROJECT_IN)  # hidden is their first axis; their biases live in the stream
UNIFORM = 1e-12  # spread of a gain, relative to its size, that a rotation may ignore


def _reads(twin: TwinCheckpoint, role: Role) -> bool:
    """Whether hidden is the last axis. The embedding and the head are of another width where they are projected."""
    if role.part in (EMBEDDING, HEAD):
        return not role.bias and not stored_outside(twin, PROJECT_IN)
    return role.part in READS and not role.bias


def _permute(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    draw = twin.draw()  # one for the whole model
    order = permutation(twin.shape.hidden, generator=draw)
    flips = torch.ones(len(order)).double() if twin.architecture.layer_norm else signs(len(order), generator=draw)
    if _reads(twin, role):
        read = value[:, order] * flips
        return read[order] if role.part == TRANSFORM else read  # it writes what the embedding's rows read again
    if role.part in WRITES:
        return value[order] * (flips if role.bias else flips[:, None])
    return value[order] if role.part.endswith("_ln") or role.part == TRANSFORM else value


@lru_cache(maxsize=1)
def _rotation(seed: int, side: int, fixes_one: bool) -> torch.Tensor:
    """The last one drawn is kept: every tensor of a model needs the same."""
    draw = generator(seed, "rotation of the residual stream")
    if not fixes_one:
        return spectra.haar(side, side, draw)
    # An orthonormal basis whose first vector is 1/√D, and a rotation of the others.
    spanning = torch.eye(side, dtype=torch.float64)
    spanning[:, 0] = 1
    basis = torch.linalg.qr(spanning).Q
    others = basis[:, 1:]
    return basis[:, :1] @ basis[:, :1].mT + others @ spectra.haar(side - 1, side - 1, draw) @ others.mT


def _rotate(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    rotation = _rotation(twin.seed, twin.shape.hidden, twin.architecture.layer_norm)
    if _reads(twin, role):
        return value @ rotation.mT
    in_stream = role.part in WRITES or (role.bias and role.part.endswith("_ln"))
    return rotation @ value if in_stream else value


def _uniform_gains(checkpoint: Checkpoint) -> str | None:
    """Why a rotation would not pass through the norms."""

    def uniform(part: str, layer: int | None) -> bool:
        values = gain(checkpoint, part, layer)
        return bool(values.max() - values.min() <= UNIFORM * values.abs().max())

    if stored_outside(checkpoint, FINAL_GAIN) and not uniform(FINAL_GAIN, None):
        way_out = "and a head tied to the embedding cannot take it up" if is_tied(checkpoint) else "fold it first"
        return f"the final norm's gain is not uniform over channels; {way_out}"
    for part in NORMS:
        if part in checkpoint.places and not all(uniform(part, layer) for layer in range(checkpoint.shape.layers)):
            return f"the gains {part} are not uniform over channels; fold them first"
    return None


def _write_a_constant(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """W → W + 1 uᵀ and b → b + c·1 of what writes: every channel gets the same number, whatever the input."""
    if role.part not in BRANCHES:
        return value
    size = value.square().mean().sqrt()
    key = (role.part, role.layer, role.bias) if role.number is None else (role.part, role.layer, role.number)
    shape = () if role.bias else value.shape[1:]
    return value + size * torch.randn(shape, generator=twin.draw(*key), dtype=torch.float64)


def _scale_writes(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in BRANCHES:
        return value
    return value * powers_of_two(1, generator=twin.draw(role.part, role.layer), least=0)  # larger ones hide the eps


def _scale_stream(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """All that is added to the stream times s; what reads it without a norm, and a tied head, over s."""
    factor = 2 * float(powers_of_two(1, generator=twin.draw(), least=0))  # larger ones hide the eps
    behind, projected = facts.norms_behind(twin), stored_outside(twin, PROJECT_IN)
    normed = stored_outside(twin, "embedding_ln")
    match role.part:
        case "embedding":
            return value if normed or projected else value * factor
        case "positions" | "token_types":
            return value if normed else value * factor
        case "embedding_ln" | "attn_out_ln" | "ffn_out_ln":
            return scaled(twin, role, value, factor)
        case "project_in":
            return value * factor
        case "o_proj" | "down_proj":
            return value if behind else value * factor
        case "final_ln":
            over = is_tied(twin) and not (normed or projected)  # the head's factor goes into its gain
            return scaled(twin, role, value, 1 / factor) if over else value
    if role.bias or not behind or twin.architecture.feed_forward_norm is not None:
        return value
    return value / factor if role.part in (*ATTENTION, *FEED_FORWARD) else value  # they read the stream as it is


PERMUTE_STREAM = CoordinateMap(
    name=names.CHANNELS,
    sentence="The channels of the residual stream change places and signs throughout the model, gains along with them.",
    lossless=True,
    change=_permute,
)
ROTATE_FOLDED_STREAM = CoordinateMap(
    name="rotation of a folded stream",
    sentence="The residual stream is rotated throughout the model, whose gains are all uniform; under LayerNorm by a "
    "rotation that fixes the vector of ones.",
    lossless=False,
    change=_rotate,
    fits=facts.stream_turns,
    precondition=_uniform_gains,
    case_of=(names.ROTATION,),
)
ROTATE_STREAM = compose(
    names.ROTATION,
    "The gains are folded, then the residual stream is rotated throughout the model.",
    FOLD_GAINS,
    ROTATE_FOLDED_STREAM,
    optional=(FOLD_GAINS,),
)
WRITE_CONSTANT = CoordinateMap(
    name=names.CONSTANT,
    sentence="What each branch writes gets a number added that is the same in all channels, which every LayerNorm "
    "takes off again.",
    lossless=False,
    change=_write_a_constant,
    fits=facts.constants_are_taken_off,
)
SCALE_WRITES = CoordinateMap(
    name=names.WRITES,
    sentence="What each branch writes is multiplied by a power of two, which the norm behind the branch takes off.",
    lossless=True,
    eps_limited=lambda checkpoint: True,
    change=_scale_writes,
    fits=facts.size_of_writes_is_free,
)
SCALE_STREAM = CoordinateMap(
    name=names.STREAM,
    sentence="The embedding and all that is written to the residual stream are multiplied by one power of two, which "
    "the norms in front of the branches take off.",
    lossless=True,
    eps_limited=lambda checkpoint: True,
    change=_scale_stream,
    fits=facts.stream_has_a_free_scale,
)
