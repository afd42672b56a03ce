"""Which part of the model does the tensor of this name belong to?

The analyses go from a family and a layer to a name; whoever changes a model goes the other way,
and needs the parts that no analysis reads: embedding, head, final gain, biases.
"""

from dataclasses import dataclass

from analyses.checkpoint import Checkpoint
from analyses.places import Place, is_gain
from analyses.recognise import BUFFERS

EMBEDDING, FINAL_GAIN, HEAD = "embedding", "final_ln", "head"  # parts beside the families


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one stored tensor is."""

    part: str  # a family, or "embedding", "final_ln", "head"
    layer: int | None = None  # None outside the layers
    bias: bool = False  # the part's bias, (out,), instead of its weight

    @property
    def is_gain(self) -> bool:
        return not self.bias and is_gain(self.part)


def role_of(checkpoint: Checkpoint, name: str) -> Role | None:
    """The role of a tensor by its name on disk; None for what the architecture table does not know."""
    bare = name.removeprefix(checkpoint.prefix)
    for table, tails in ((checkpoint.architecture.outside, (bare,)), (checkpoint.architecture.head, _tails(name))):
        for part, names in table.items():
            for known in names:
                if known in tails:
                    return Role(part=part)
                if Place(known).bias().name in tails:
                    return Role(part=part, bias=True)
    for part, place in checkpoint.places.items():
        for bias in (False, True):
            if found := (place.bias() if bias else place).find(bare):
                return Role(part=part, layer=found[0], bias=bias)
    return None


def _tails(name: str) -> tuple[str, ...]:
    """The name, and what is left of it behind each of its dots: a head stands outside the base model's prefix."""
    words = name.split(".")
    return tuple(".".join(words[i:]) for i in range(len(words)))


def unknown_tensors(checkpoint: Checkpoint) -> list[str]:
    """Names of stored parameters without a role, in order."""
    return [n for n in sorted(checkpoint.files) if not BUFFERS.search(n) and role_of(checkpoint, n) is None]


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the head is the embedding; a head stored beside it is then ignored by the library."""
    return bool(checkpoint.config.get("tie_word_embeddings", checkpoint.architecture.tied))


def has_own_head(checkpoint: Checkpoint) -> bool:
    """Whether a stored head of its own reads the final norm's output."""
    return not is_tied(checkpoint) and any(role_of(checkpoint, name) == Role(part=HEAD) for name in checkpoint.files)
