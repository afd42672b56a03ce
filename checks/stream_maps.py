"""Exact maps of the residual stream: one change of basis for all that writes it and all that reads it.

RMSNorm commutes with permutations and sign flips if its gains are permuted along; with any rotation
only where every gain is uniform, as it is after folding. Folding empties every gain but the final
one of a tied model, whose head cannot take it up.
"""

from functools import lru_cache

import torch

from analyses import spectra
from analyses.checkpoint import Checkpoint
from checks.exact_map import CoordinateMap, compose, permutation, signs
from checks.gain_maps import FOLD_GAINS, READERS, gain
from checks.roles import EMBEDDING, FINAL_GAIN, HEAD, Role, is_tied
from checks.twins import TwinCheckpoint, generator

READS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", HEAD, EMBEDDING)  # hidden is their last axis
WRITES = ("o_proj", "down_proj")  # hidden is their first axis; their biases live in the stream
UNIFORM = 1e-12  # spread of a gain, relative to its size, that a rotation may ignore


def _permute(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    draw = twin.draw()  # one for the whole model
    order = permutation(twin.shape.hidden, generator=draw)
    flips = signs(twin.shape.hidden, generator=draw)
    if role.part in READS and not role.bias:
        return value[:, order] * flips
    if role.part in WRITES:
        return value[order] * (flips if role.bias else flips[:, None])
    return value[order] if role.part in READERS else value


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

    if not uniform(FINAL_GAIN, None):
        way_out = "and a head tied to the embedding cannot take it up" if is_tied(checkpoint) else "fold it first"
        return f"the final norm's gain is not uniform over channels; {way_out}"
    for part in READERS:
        if part != FINAL_GAIN and not all(uniform(part, layer) for layer in range(checkpoint.shape.layers)):
            return f"the gains {part} are not uniform over channels; fold them first"
    return None


PERMUTE_STREAM = CoordinateMap(
    name="stream permutation",
    sentence="The channels of the residual stream change places and signs throughout the model, gains along with them.",
    lossless=True,
    change=_permute,
)
ROTATE_FOLDED_STREAM = CoordinateMap(
    name="rotation of a folded stream",
    sentence="The residual stream is rotated throughout the model, whose gains are all uniform.",
    lossless=False,
    change=_rotate,
    precondition=_uniform_gains,
)
ROTATE_STREAM = compose(
    "stream rotation",
    "The gains are folded, then the residual stream is rotated throughout the model.",
    FOLD_GAINS,
    ROTATE_FOLDED_STREAM,
)
