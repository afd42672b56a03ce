"""Exact maps of the residual stream: one change of basis for all that writes it and all that reads it.

RMSNorm commutes with permutations and sign flips if its gains are permuted along; with any rotation
only where every gain is uniform, as it is after folding. Folding empties every gain but the final
one of a tied model, whose head cannot take it up, and those of norms behind a branch. LayerNorm
commutes with permutations alone, and takes off whatever constant a branch writes to all channels.
A norm behind a branch takes off the branch's scale.
"""

from functools import lru_cache

import torch

from analyses.numerics import spectra
from analyses.weights.checkpoint import Checkpoint
from checks.maps import names
from checks.maps.exact import CoordinateMap, compose, permutation, powers_of_two, signs
from checks.maps.gains import FOLD_GAINS, NORMS, gain
from checks.twins.roles import EMBEDDING, FINAL_GAIN, HEAD, Role, is_tied, roles_of
from checks.twins.twins import TwinCheckpoint, generator

# Hidden is the last axis of these: they read the stream, or are rows of it.
READS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", HEAD, EMBEDDING, "positions")
WRITES = ("o_proj", "down_proj")  # hidden is their first axis; their biases live in the stream
UNIFORM = 1e-12  # spread of a gain, relative to its size, that a rotation may ignore


def _permute(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    draw = twin.draw()  # one for the whole model
    order = permutation(twin.shape.hidden, generator=draw)
    flips = torch.ones(len(order)).double() if twin.architecture.layer_norm else signs(len(order), generator=draw)
    if role.part in READS and not role.bias:
        return value[:, order] * flips
    if role.part in WRITES:
        return value[order] * (flips if role.bias else flips[:, None])
    return value[order] if role.part.endswith("_ln") else value


@lru_cache(maxsize=1)
def _rotation(seed: int, side: int) -> torch.Tensor:
    """The last one drawn is kept: every tensor of a model needs the same."""
    return spectra.haar(side, side, generator(seed, "rotation of the residual stream"))


def _rotate(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    rotation = _rotation(twin.seed, twin.shape.hidden)
    if role.part in READS and not role.bias:
        return value @ rotation.mT
    return rotation @ value if role.part in WRITES else value


def _uniform_gains(checkpoint: Checkpoint) -> str | None:
    """Why a rotation would not pass through the norms."""

    def uniform(part: str, layer: int | None) -> bool:
        values = gain(checkpoint, part, layer)
        return bool(values.max() - values.min() <= UNIFORM * values.abs().max())

    if checkpoint.architecture.layer_norm:
        return "LayerNorm takes off the mean over channels, which a rotation moves"
    layers = range(checkpoint.shape.layers)
    for part in checkpoint.architecture.further:
        if part.endswith("_ln") and not all(uniform(part, layer) for layer in layers):
            return f"the gains {part} behind a branch are not uniform over channels, and no matrix can take them up"
    if not uniform(FINAL_GAIN, None):
        way_out = "and a head tied to the embedding cannot take it up" if is_tied(checkpoint) else "fold it first"
        return f"the final norm's gain is not uniform over channels; {way_out}"
    for part in NORMS:
        if part in checkpoint.families and not all(uniform(part, layer) for layer in layers):
            return f"the gains {part} are not uniform over channels; fold them first"
    return None


def _stream_is_one(checkpoint: Checkpoint) -> str | None:
    if {"project_in", "project_out"} & {r.part for name in checkpoint.files for r in roles_of(checkpoint, name)}:
        return "the embedding is projected into a stream of another width"
    return None


def _write_a_constant(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """W → W + 1 uᵀ and b → b + c·1 of what writes: every channel gets the same number, whatever the input."""
    if role.part not in WRITES:
        return value
    size = value.square().mean().sqrt()
    shape = () if role.bias else value.shape[1:]
    return value + size * torch.randn(shape, generator=twin.draw(role.part, role.layer, role.bias), dtype=torch.float64)


def _scale_writes(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part not in WRITES:
        return value
    return value * powers_of_two(1, generator=twin.draw(role.part, role.layer), least=0)  # larger ones hide the eps


def _norms_behind(checkpoint: Checkpoint) -> str | None:
    if {"attn_out_ln", "ffn_out_ln"} <= set(checkpoint.architecture.further):
        return None
    return "no norm stands behind the branches, so the size of what they write matters"


PERMUTE_STREAM = CoordinateMap(
    name=names.CHANNELS,
    sentence="The channels of the residual stream change places and signs throughout the model, gains along with them.",
    lossless=True,
    change=_permute,
    precondition=_stream_is_one,
)
ROTATE_FOLDED_STREAM = CoordinateMap(
    name="rotation of a folded stream",
    sentence="The residual stream is rotated throughout the model, whose gains are all uniform.",
    lossless=False,
    change=_rotate,
    precondition=_uniform_gains,
)
ROTATE_STREAM = compose(
    names.ROTATION,
    "The gains are folded, then the residual stream is rotated throughout the model.",
    FOLD_GAINS,
    ROTATE_FOLDED_STREAM,
)
WRITE_CONSTANT = CoordinateMap(
    name=names.CONSTANT,
    sentence="What each branch writes gets a number added that is the same in all channels, which every LayerNorm "
    "takes off again.",
    lossless=False,
    change=_write_a_constant,
    precondition=lambda c: None if c.architecture.layer_norm else "RMSNorm does not take off a constant",
)
SCALE_WRITES = CoordinateMap(
    name=names.WRITES,
    sentence="What each branch writes is multiplied by a power of two, which the norm behind the branch takes off.",
    lossless=True,
    eps_limited=lambda checkpoint: True,
    change=_scale_writes,
    precondition=_norms_behind,
)
