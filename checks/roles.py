"""Which part of the model does the tensor of this name belong to?

The analyses go from a family and a layer to a name; whoever changes a model goes the other way,
and needs the parts that no analysis reads: embedding, head, final gain, biases.
"""

import re
from dataclasses import dataclass

from analyses.architectures import GAINS
from analyses.checkpoint import Checkpoint

EMBEDDING, FINAL_GAIN, HEAD = "embedding", "final_ln", "head"  # parts beside the families
HEAD_NAME = "lm_head.weight"  # never behind the base model's prefix
BUFFER = "rotary_emb.inv_freq"  # rotary frequencies that old checkpoints store: a constant, no parameter
_IN_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one stored tensor is."""

    part: str  # a family, or "embedding", "final_ln", "head"
    layer: int | None = None  # None outside the layers
    bias: bool = False  # the part's bias, (out,), instead of its weight

    @property
    def is_gain(self) -> bool:
        return not self.bias and (self.part in GAINS or self.part == FINAL_GAIN)


def role_of(checkpoint: Checkpoint, name: str) -> Role | None:
    """The role of a tensor by its name on disk; None for what the architecture table does not know."""
    if name == HEAD_NAME:
        return Role(part=HEAD)
    bare = name.removeprefix(checkpoint.prefix)
    if bare == "embed_tokens.weight":
        return Role(part=EMBEDDING)
    if bare == checkpoint.architecture.final_norm + ".weight":
        return Role(part=FINAL_GAIN)
    if match := _IN_LAYER.fullmatch(bare):
        layer, module, kind = match.groups()
        for family, template in checkpoint.architecture.tensors.items():
            if template == f"layers.{{}}.{module}.weight":
                return Role(part=family, layer=int(layer), bias=kind == "bias")
    return None


def unknown_tensors(checkpoint: Checkpoint) -> list[str]:
    """Names of stored parameters without a role, in order."""
    return [n for n in sorted(checkpoint.files) if not n.endswith(BUFFER) and role_of(checkpoint, n) is None]


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the head is the embedding; a head stored beside it is then ignored by the library."""
    return bool(checkpoint.config.get("tie_word_embeddings", False))


def has_own_head(checkpoint: Checkpoint) -> bool:
    """Whether a stored head of its own reads the final norm's output."""
    return HEAD_NAME in checkpoint.files and not is_tied(checkpoint)
