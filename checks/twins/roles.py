"""The part of the model that a tensor belongs to, by its name.

The analyses go from a family and a layer to a name; whoever changes a model goes the other way,
and needs the parts that no analysis reads: embedding, head, final gain, biases.
"""

from dataclasses import dataclass

from analyses.weights.beside import TOWERS
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.layouts import PLAIN, Layout
from analyses.weights.recognise import BUFFERS
from analyses.weights.schema import Place, is_gain

EMBEDDING, FINAL_GAIN, HEAD = "embedding", "final_ln", "head"  # parts beside the families
HEAD_BIAS = "head_own_bias"  # of a head whose matrix is the embedding: a parameter by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one stored tensor is."""

    part: str  # a family, or "embedding", "final_ln", "head"
    layer: int | None = None  # None outside the layers
    bias: bool = False  # the part's bias, (out,), instead of its weight
    number: int | None = None  # of the expert or head, where each has a tensor of its own

    @property
    def key(self) -> tuple[object, ...]:
        """What tells this role's weight from others, for whoever draws at random."""
        return (self.part, self.layer) if self.number is None else (self.part, self.layer, self.number)

    @property
    def is_gain(self) -> bool:
        return not self.bias and is_gain(self.part)


class _Known:
    """What names tell of a checkpoint, found once for it and for all twins of it, which share its facts."""

    def __init__(self, checkpoint: Checkpoint):
        self.facts = _facts(checkpoint)
        self.roles: dict[str, tuple[Role, ...]] = {}
        self.has_head: bool | None = None
        self.unknown: list[str] | None = None


_KNOWN: list[_Known] = []  # of the last few checkpoints


def _facts(checkpoint: Checkpoint) -> tuple[object, ...]:
    return checkpoint.files, checkpoint.places, checkpoint.architecture, checkpoint.prefix, checkpoint.beside


def _known(checkpoint: Checkpoint) -> _Known:
    facts = _facts(checkpoint)
    for known in _KNOWN:
        if all(a is b for a, b in zip(known.facts, facts, strict=True)):
            return known
    _KNOWN[:] = [_Known(checkpoint), *_KNOWN[:3]]
    return _KNOWN[0]


def roles_of(checkpoint: Checkpoint, name: str) -> tuple[Role, ...]:
    """The roles that a tensor holds, by its name on disk, in the order of its layout; () if none is known."""
    if name in checkpoint.beside:
        return ()
    roles = _known(checkpoint).roles
    if name not in roles:
        roles[name] = _roles(checkpoint, name)
    return roles[name]


def _roles(checkpoint: Checkpoint, name: str) -> tuple[Role, ...]:
    bare = name.removeprefix(checkpoint.prefix)
    for table, tails in ((checkpoint.architecture.outside, (bare,)), (checkpoint.architecture.head, _tails(name))):
        for part, names in table.items():
            for known in names:
                if known in tails:
                    return (Role(part=part),)
                if Place(known).bias().name in tails:
                    return (Role(part=part, bias=True),)
    for part, place in checkpoint.places.items():
        for bias in (False, True):
            if found := (place.bias() if bias else place).find(bare):
                layer, number = found
                return tuple(
                    Role(part=held, layer=layer, bias=bias, number=number) for held in place.layout.roles or (part,)
                )
    return ()


def layout_of(checkpoint: Checkpoint, role: Role) -> Layout:
    """How the tensor that holds this role holds it."""
    return checkpoint.places[role.part].layout if role.layer is not None else PLAIN


def _tails(name: str) -> tuple[str, ...]:
    """The name, and what is left of it behind each of its dots: a head stands outside the base model's prefix."""
    words = name.split(".")
    return tuple(".".join(words[i:]) for i in range(len(words)))


def unknown_tensors(checkpoint: Checkpoint) -> list[str]:
    """Names of stored parameters of the decoder without a role, in order."""
    known = _known(checkpoint)
    if known.unknown is None:
        decoder = (n for n in sorted(checkpoint.files) if n not in checkpoint.beside and not TOWERS.search(n))
        names = (n for n in decoder if not BUFFERS.search(n))
        known.unknown = [name for name in names if not roles_of(checkpoint, name)]
    return list(known.unknown)


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the head is the embedding; a head stored beside it is then ignored by the library."""
    return bool(checkpoint.config.get("tie_word_embeddings", checkpoint.architecture.tied))


def has_own_head(checkpoint: Checkpoint) -> bool:
    """Whether a stored head of its own reads the final norm's output."""
    if is_tied(checkpoint):
        return False
    known = _known(checkpoint)
    if known.has_head is None:
        known.has_head = any(Role(part=HEAD) in roles_of(checkpoint, name) for name in checkpoint.files)
    return known.has_head
