"""A checkpoint on disk or on the hub, read tensor by tensor.

Nothing here instantiates a model or imports transformers: `config.json` is read as it is and the
weights stay on disk until one of them is asked for. Where they are is the question of `hub`, how
one is read that of `weight_files`; here they get their roles.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from analyses import hub, weight_files
from analyses.architectures import FAMILIES, GAINS, Architecture, architecture
from analyses.errors import InputError
from analyses.headers import Header
from analyses.quantised import quantised
from analyses.weight_files import Tick, require_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a decoder, from its config."""

    layers: int
    hidden: int  # D
    heads: int  # H, query heads
    kv_heads: int  # K
    head_dim: int  # d
    feed_forward: int  # F

    def of(self, family: str) -> tuple[int, ...]:
        """The shape that one layer's tensor of this family must have, (out, in) for matrices."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (query, self.hidden),
            "k_proj": (key_value, self.hidden),
            "v_proj": (key_value, self.hidden),
            "o_proj": (self.hidden, query),
            "gate_proj": (self.feed_forward, self.hidden),
            "up_proj": (self.feed_forward, self.hidden),
            "down_proj": (self.hidden, self.feed_forward),
            "input_ln": (self.hidden,),
            "post_attn_ln": (self.hidden,),
            "q_norm": (self.head_dim,),
            "k_norm": (self.head_dim,),
        }[family]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights by (family, layer), with the facts of the config. Made by `open_checkpoint`."""

    altered: ClassVar[bool] = False  # True where `tensor` gives other values than the files hold
    name: str  # as given, without the revision and without the folders above
    folder: Path
    revision: str | None  # resolved commit of a hub model; None for a folder
    config: Mapping[str, Any]
    architecture: Architecture
    shape: Shape
    files: Mapping[str, Path]  # tensor's name on disk → file
    headers: Mapping[str, Header]  # tensor's name on disk → its shape and type
    prefix: str  # "" or "model."
    first_layer: int = 0  # the layer of the file that is layer 0 here; see `restricted`
    left_out: tuple[str, ...] = ()  # families that the model has and this view has not

    @property
    def absent(self) -> dict[str, str]:
        """Families that this model lacks → why."""
        return dict(self.architecture.absent) | dict.fromkeys(self.left_out, "left out of this measurement")

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(f for f in FAMILIES if f in self.architecture.tensors and f not in self.left_out)

    @property
    def has_qk_norm(self) -> bool:
        return "q_norm" in self.architecture.tensors

    @property
    def has_qk_bias(self) -> bool:
        """Whether queries or keys carry a bias, which the head metric omits."""
        return any(self._name(f, 0).replace(".weight", ".bias") in self.files for f in ("q_proj", "k_proj"))

    def _name(self, family: str, layer: int) -> str:
        return self.prefix + self.architecture.tensors[family].format(self.first_layer + layer)

    def restricted(self, *, layers: range | None = None, families: Sequence[str] | None = None) -> "Checkpoint":
        """A view with these layers and families alone; its layer 0 is `layers.start` of this one.

        For weight analyses: the forward pass and changes of the weights need the whole model.
        Raises InputError for layers that the model has not, for fewer than two of them, and for
        families that are not in FAMILIES.
        """
        layers = range(self.shape.layers) if layers is None else layers
        families = FAMILIES if families is None else families
        if len(layers) < 2 or layers.step != 1 or layers.start < 0 or layers.stop > self.shape.layers:
            asked = f"{layers.start}:{layers.stop}"
            raise InputError(f"layers {asked}: expected at least two within 0:{self.shape.layers} of {self.name}")
        if unknown := [family for family in families if family not in FAMILIES]:
            raise InputError(f"no family '{unknown[0]}' (there are: {', '.join(FAMILIES)})")
        return replace(
            self,
            shape=replace(self.shape, layers=len(layers)),
            first_layer=self.first_layer + layers.start,
            left_out=tuple(f for f in self.families if f not in families) + self.left_out,
        )

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor as stored, by its name on disk."""
        return weight_files.read(self.files[name], name)

    def weight(self, family: str, layer: int, *, device: str = "cpu") -> torch.Tensor:
        """One layer's matrix (out, in), or effective norm gain (hidden,), upcast to float64.

        Raises InputError if an entry is NaN or infinite.
        """
        name = self._name(family, layer)
        stored = self.tensor(name)
        require_finite(name, stored)
        value = stored.to(device=device, dtype=torch.float64)
        return value + self.architecture.gain_offset if family in GAINS else value

    def parameters(self) -> int:
        """Number of stored parameters, from the headers."""
        return sum(math.prod(header.shape) for header in self.headers.values() if header.shares is None)

    def head_blocks(self, family: str, layer: int, *, device: str = "cpu") -> torch.Tensor:
        """Rows of q_proj, k_proj or v_proj by head: (head or kv_head, head_dim, hidden), float64."""
        return self.weight(family, layer, device=device).unflatten(0, (-1, self.shape.head_dim))

    def inspect(self, tick: Tick = lambda done, of: None) -> dict[str, str]:
        """sha256 of every weight file, tokenizer and config, by file name; reads every byte once.

        Raises InputError naming the first tensor that holds a NaN or an infinity.
        """
        return weight_files.inspect(self.files, self.folder, tick)


def open_checkpoint(source: str) -> Checkpoint:
    """Open a folder, a hub id or `id@revision`; reads the config and the headers, no tensor.

    Raises InputError in one line for what is missing, unknown, or does not fit the config.
    """
    folder, revision, name = hub.locate(source)
    config = hub.read_config(folder)
    files, headers = weight_files.index(folder)
    return assemble(name=name, folder=folder, revision=revision, config=config, files=files, headers=headers)


def assemble(
    *,
    name: str,
    folder: Path,
    revision: str | None,
    config: Mapping[str, Any],
    files: Mapping[str, Path],
    headers: Mapping[str, Header],
) -> Checkpoint:
    """The checkpoint that a config and the headers of its weights describe, wherever they came from.

    Raises InputError in one line for what is unknown, quantised, or does not fit the config.
    """
    if reason := quantised(config, headers):
        raise InputError(f"{name}: the weights are quantised ({reason}); give the unquantised checkpoint")
    # Composite models (text with vision) keep the decoder's numbers one level down.
    config = config.get("text_config", config)
    record = architecture(config.get("model_type", "(none)"))
    shape = _shape(config, folder)
    prefix = _prefix(files, record, folder)
    checkpoint = Checkpoint(
        name=name,
        folder=folder,
        revision=revision,
        config=config,
        architecture=record,
        shape=shape,
        files=files,
        headers=headers,
        prefix=prefix,
    )
    _require_shapes(checkpoint)
    return checkpoint


def _shape(config: Mapping[str, Any], folder: Path) -> Shape:
    def number(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{folder / 'config.json'}: {key} must be a positive integer, got {value!r}")
        return value

    hidden, heads = number("hidden_size"), number("num_attention_heads")
    shape = Shape(
        layers=number("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // heads),
        feed_forward=number("intermediate_size"),
    )
    if shape.layers < 2:
        raise InputError(f"{folder}: the model has one layer; Fathom compares layers and needs at least two")
    if heads % shape.kv_heads:
        raise InputError(f"{folder / 'config.json'}: {heads} heads do not divide over {shape.kv_heads} key/value heads")
    return shape


def _prefix(files: Mapping[str, Path], record: Architecture, folder: Path) -> str:
    first = record.tensors["q_proj"].format(0)
    for prefix in ("model.", ""):
        if prefix + first in files:
            return prefix
    raise InputError(f"{folder}: no tensor model.{first} or {first}; config and weights disagree")


def _require_shapes(checkpoint: Checkpoint) -> None:
    for family in checkpoint.families:
        expected = checkpoint.shape.of(family)
        for layer in range(checkpoint.shape.layers):
            name = checkpoint._name(family, layer)
            if name not in checkpoint.files:
                raise InputError(
                    f"{checkpoint.folder}: no tensor {name}, though the config says "
                    f"{checkpoint.shape.layers} layers; config and weights disagree"
                )
            if (stored := checkpoint.headers[name].shape) != expected:
                raise InputError(f"tensor {name}: shape {list(stored)}, but the config says {list(expected)}")
    beyond = checkpoint._name("q_proj", checkpoint.shape.layers)
    if beyond in checkpoint.files:
        raise InputError(
            f"{checkpoint.folder}: the weights hold more layers than the config's "
            f"{checkpoint.shape.layers} (found {beyond})"
        )
