"""A copy of a tied checkpoint with a head of its own: the same function, and more exact maps of it.

A head that is the embedding cannot take up the final norm's gain, which keeps the stream from being rotated. Once the
embedding is stored a second time as the head, both have a say of their own.
"""

from dataclasses import dataclass, fields

import torch

from analyses.weights.checkpoint import Checkpoint
from checks.twins.roles import EMBEDDING, HEAD, has_own_head, is_tied


@dataclass(frozen=True, slots=True, kw_only=True)
class Untied(Checkpoint):
    """Gives the embedding under the head's name too; everything else as the checkpoint that it is made of."""

    base: Checkpoint
    head: str  # the head's name
    embedding: str  # the name of what it gives

    def tensor(self, name: str) -> torch.Tensor:
        return self.base.tensor(self.embedding if name == self.head else name)

    def expert(self, name: str, number: int) -> torch.Tensor:
        return self.base.expert(name, number)

    def rows(self, name: str, role: str) -> torch.Tensor:
        return self.base.rows(name, role)


def untied(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint itself where its head is its own, or where it has none to untie; else its untied copy."""
    if has_own_head(checkpoint) or not is_tied(checkpoint):
        return checkpoint
    embedding = checkpoint.prefix + checkpoint.architecture.outside[EMBEDDING][0]
    (head, *_) = checkpoint.architecture.head.get(HEAD, ("",))
    if not head or embedding not in checkpoint.files:
        return checkpoint
    facts = {f.name: getattr(checkpoint, f.name) for f in fields(Checkpoint)}
    facts["config"] = {**checkpoint.config, "tie_word_embeddings": False}
    facts["files"] = {**checkpoint.files, head: checkpoint.files[embedding]}
    facts["headers"] = {**checkpoint.headers, head: checkpoint.headers[embedding]}
    facts["name"] = f"{checkpoint.name} (untied)"
    return Untied(**facts, base=checkpoint, head=head, embedding=embedding)
