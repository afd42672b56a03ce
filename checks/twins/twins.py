"""Models with one property destroyed, of which a claim about trained weights must not hold.

A twin is a checkpoint whose tensors are a pure function of another checkpoint's tensors, a seed
and the tensor's name. It is never a second copy on disk: each tensor is made when it is asked for,
so that every analysis runs on it unchanged, streamed, in the same bytes each time. A twin of a
twin is a twin; `save` writes one out for whoever wants the files.

Values keep the stored dtype wherever it holds them exactly and come out in float64 otherwise, so
that a twin is never spoilt by rounding.

Shuffled and freshly initialised twins are here, planted ones in `checks.twins.planted`, exact changes of
coordinates in `checks.maps.catalogue`.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors.torch import save_file

from analyses.weights.checkpoint import Checkpoint
from analyses.weights.hub import SMALL_FILES
from checks.twins.roles import HEAD_BIAS, Role, layout_of, roles_of, unknown_tensors

STANDARD_DEVIATION = 0.02  # the library's initializer_range where a config has none, or 0


class Change(Protocol):
    """What turns a checkpoint into a twin."""

    name: str

    def change(self, twin: "TwinCheckpoint", role: Role, value: torch.Tensor) -> torch.Tensor:
        """The twin's tensor in place of `value`, the base's as stored; `value` itself may be returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinCheckpoint(Checkpoint):
    """A checkpoint whose tensors are made from another's on demand. Made by `make_twin`."""

    altered: ClassVar[bool] = True
    base: Checkpoint  # a checkpoint on disk, or another twin
    changed_by: Change
    seed: int
    memory: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # of chained plants; and HELD
    made: dict[str, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)  # tensors, once made
    keeps: int = 0  # bytes of matrices in `made` at most; gains and biases, which many maps read, are always kept

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor of the twin, by its name on disk; what has no role is passed through."""
        if name in self.made:
            return self.made[name].clone()
        value = self._twin_of(name, self.base.tensor(name))
        if value.ndim == 1 or self.memory.get(HELD, 0) + value.nbytes <= self.keeps:
            self.memory[HELD] = self.memory.get(HELD, 0) + value.nbytes
            self.made[name] = value.clone()
        return value

    def expert(self, name: str, number: int) -> torch.Tensor:
        """One expert's part of a tensor of the twin that holds all of a layer's."""
        return self._twin_of(name, self.base.expert(name, number)[None], first=number)[0]

    def rows(self, name: str, role: str) -> torch.Tensor:
        return self.places[role].layout.take(self.tensor(name), role, self.shape)

    def _twin_of(self, name: str, stored: torch.Tensor, first: int = 0) -> torch.Tensor:
        roles = roles_of(self, name)
        if not roles:
            return stored
        layout = layout_of(self, roles[0])
        parts = layout.split(stored, self.shape)
        parts = [self._changed(role, part, first) for role, part in zip(roles, parts, strict=True)]
        if len({part.dtype for part in parts}) > 1:
            parts = [part.double() for part in parts]
        return held(layout.join(parts, self.shape), stored.dtype)

    def _changed(self, role: Role, value: torch.Tensor, first: int) -> torch.Tensor:
        """A role's values changed; of experts that are stored together, each by itself, counted from `first`."""
        if not layout_of(self, role).stacked:
            return self.changed_by.change(self, role, value)
        experts = [self.changed_by.change(self, replace(role, number=n), part) for n, part in enumerate(value, first)]
        wide = torch.float64 if len({e.dtype for e in experts}) > 1 else experts[0].dtype
        return torch.stack([expert.to(wide) for expert in experts])

    def draw(self, *key: object) -> torch.Generator:
        """A generator for this change and key, the same in every process and for every order of reading."""
        return generator(self.seed, self.changed_by.name, *key)


def make_twin(base: Checkpoint, changed_by: Change, seed: int) -> TwinCheckpoint:
    facts = {f.name: getattr(base, f.name) for f in fields(Checkpoint)}
    facts["name"] = f"{base.name} ({changed_by.name}, seed {seed})"
    return TwinCheckpoint(**facts, base=base, changed_by=changed_by, seed=seed)


HELD = "bytes held"  # key in a twin's memory: of all tensors in `made`
KEPT = 1 << 28  # bytes: a small model's tensors all fit, of a large one's each is made again when it is read


def kept(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint; a twin makes a matrix once and keeps it, up to KEPT, for whoever reads it several times."""
    return replace(checkpoint, keeps=KEPT) if isinstance(checkpoint, TwinCheckpoint) else checkpoint


def generator(seed: int, *key: object) -> torch.Generator:
    """A CPU generator seeded by sha256 of the seed and the key: Python's own hash changes between processes."""
    digest = hashlib.sha256(":".join(map(str, (seed, *key))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def held(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values in `dtype` where it holds each of them exactly, else in float64."""
    if value.dtype == dtype:
        return value
    narrow = value.to(dtype)
    return narrow if torch.equal(narrow.double(), value.double()) else value.double()


def save(twin: Checkpoint, folder: Path) -> Path:
    """Write a twin in Hugging Face's layout as safetensors, shard by shard, with the base's config and tokenizer.

    Returns the folder. Tensors keep the dtype in which the twin gives them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in SMALL_FILES:
        for path in sorted(twin.folder.glob(pattern)):
            if not path.name.endswith(".index.json"):
                shutil.copyfile(path, folder / path.name)
    shards = sorted(set(twin.files.values()))
    new = {shard: f"model-{i:05}-of-{len(shards):05}.safetensors" for i, shard in enumerate(shards, 1)}
    for shard, name in new.items():
        held_there = sorted(tensor for tensor, path in twin.files.items() if path == shard)
        save_file({t: twin.tensor(t).contiguous() for t in held_there}, folder / name, {"format": "pt"})
    where = {tensor: new[path] for tensor, path in sorted(twin.files.items())}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    return folder


# --- kinds of twin ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """One way of destroying or planting a property."""

    name: str
    preserves: str  # for the page
    destroys: str
    change: Callable[[TwinCheckpoint, Role, torch.Tensor], torch.Tensor]
    size: float | None = None  # of a planted effect, stated beforehand
    precondition: Callable[[Checkpoint], str | None] = lambda checkpoint: None

    def undefined(self, checkpoint: Checkpoint) -> str | None:
        """Why this twin cannot be made of the checkpoint; None where it can."""
        if unknown := unknown_tensors(checkpoint):
            return f"the role of tensor {unknown[0]} is not known here"
        return self.precondition(checkpoint)

    def apply(self, checkpoint: Checkpoint, seed: int) -> TwinCheckpoint:
        """The twin; raises ValueError where `undefined` gives a reason."""
        if reason := self.undefined(checkpoint):
            raise ValueError(f"{self.name}: {reason}")
        return make_twin(checkpoint, self, seed)


def _shuffle(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    order = torch.randperm(value.numel(), generator=twin.draw(*role.key, role.bias))
    return value.flatten().index_select(0, order).view(value.shape)


def _initialise(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """As the library's own classes do: one normal distribution for all matrices, but for GPT-2's writes."""
    if role.bias or role.part == HEAD_BIAS:
        return torch.zeros_like(value)
    if role.is_gain:
        return torch.full_like(value, 1 - twin.architecture.gain_offset)
    given = twin.config.get("initializer_range", twin.config.get("init_std"))
    deviation = given or STANDARD_DEVIATION
    if twin.architecture.scaled_writes and role.part in ("o_proj", "down_proj"):
        deviation /= math.sqrt(2 * twin.shape.layers)
    drawn = deviation * torch.randn(value.shape, generator=twin.draw(*role.key), dtype=torch.float32)
    padding = twin.config.get("pad_token_id")
    if role.part in twin.architecture.zero_padding and padding is not None:
        drawn[padding] = 0
    return drawn.to(value.dtype)


SHUFFLED = Twin(
    name="shuffled",
    preserves="every tensor's set of entries, hence norms, means and tails",
    destroys="every relation between entries: spectra, heads, what layers share, and the model's function",
    change=_shuffle,
)
INITIALISED = Twin(
    name="initialised",
    preserves="the architecture, its sizes and the scale of its initialisation",
    destroys="everything that training made",
    change=_initialise,
)
