"""A checkpoint on disk or on the hub, read tensor by tensor.

Nothing here instantiates a model or imports transformers: `config.json` is read as it is and the
weights stay on disk until one of them is asked for. Files are reopened for each tensor, because
memory-mapped handles that stay open count as resident memory for as long as they live.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open

from analyses.architectures import FAMILIES, GAINS, Architecture, architecture
from analyses.errors import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HUB_FILES = ["*.json", "*.safetensors", "tokenizer*", "*.model", "merges.txt", "vocab*"]
HASH_BLOCK = 1 << 22  # bytes read at a time


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
    prefix: str  # "" or "model."

    @property
    def absent(self) -> dict[str, str]:
        """Families that this model lacks → why."""
        return dict(self.architecture.absent)

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(f for f in FAMILIES if f in self.architecture.tensors)

    @property
    def has_qk_norm(self) -> bool:
        return "q_norm" in self.architecture.tensors

    @property
    def has_qk_bias(self) -> bool:
        """Whether queries or keys carry a bias, which the head metric omits."""
        return any(self._name(f, 0).replace(".weight", ".bias") in self.files for f in ("q_proj", "k_proj"))

    def _name(self, family: str, layer: int) -> str:
        return self.prefix + self.architecture.tensors[family].format(layer)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor as stored, by its name on disk."""
        with _open(self.files[name]) as file:
            return file.get_tensor(name)

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
        count = 0
        for path in sorted(set(self.files.values())):
            with _open(path) as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
        return count

    def head_blocks(self, family: str, layer: int, *, device: str = "cpu") -> torch.Tensor:
        """Rows of q_proj, k_proj or v_proj by head: (head or kv_head, head_dim, hidden), float64."""
        return self.weight(family, layer, device=device).unflatten(0, (-1, self.shape.head_dim))

    def inspect(self) -> dict[str, str]:
        """sha256 of every weight file, tokenizer and config, by file name; reads every byte once.

        Raises InputError naming the first tensor that holds a NaN or an infinity.
        """
        for name in sorted(self.files):
            require_finite(name, self.tensor(name))
        described = set(self.files.values()) | set(self.folder.glob("*.json"))
        return {path.name: sha256(path) for path in sorted(described)}


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def require_finite(name: str, tensor: torch.Tensor) -> None:
    """Raise InputError, naming the tensor and counting the entries, unless all of it is finite."""
    if tensor.is_floating_point() and not (finite := torch.isfinite(tensor)).all():
        bad = int((~finite).sum())
        total = tensor.numel()
        raise InputError(f"tensor {name}: {bad} of {total} entries are NaN or infinite; the checkpoint is damaged")


def open_checkpoint(source: str) -> Checkpoint:
    """Open a folder, a hub id or `id@revision`; reads the config and the headers, no tensor.

    Raises InputError in one line for what is missing, unknown, or does not fit the config.
    """
    folder, revision, name = _locate(source)
    config = _read_config(folder)
    # Composite models (text with vision) keep the decoder's numbers one level down.
    config = config.get("text_config", config)
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method", "unknown method")
        raise InputError(f"{source}: weights are quantised ({method}); give the unquantised checkpoint")
    record = architecture(config.get("model_type", "(none)"))
    shape = _shape(config, folder)
    files = _index(folder)
    prefix = _prefix(files, record, folder)
    checkpoint = Checkpoint(
        name=name,
        folder=folder,
        revision=revision,
        config=config,
        architecture=record,
        shape=shape,
        files=files,
        prefix=prefix,
    )
    _require_shapes(checkpoint)
    return checkpoint


def _locate(source: str) -> tuple[Path, str | None, str]:
    """(folder, resolved revision, name) of a source, fetching it from the hub where it is an id."""
    if (folder := Path(source)).exists():
        if not folder.is_dir():
            raise InputError(f"{source}: is a file; give the folder that holds config.json")
        return folder, None, folder.resolve().name
    repository, _, revision = source.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository) or source.startswith(("./", "../", "/")):
        raise InputError(f"{source}: no such folder, and not a hub id like owner/name or owner/name@revision")
    import huggingface_hub  # only here: a folder needs no hub

    try:
        path = huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES)
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{source}: no such folder, and not to be had from the hub ({reason})") from error
    return Path(path), Path(path).name, repository


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: no config.json; expected a checkpoint in Hugging Face's layout") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected an object, got {type(config).__name__}")
    return config


def _shape(config: Mapping[str, Any], folder: Path) -> Shape:
    def number(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or value < 1:
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


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from error


def _index(folder: Path) -> dict[str, Path]:
    """Tensor name → file, from the shard index or from the single file's header."""
    if (folder / INDEX).exists():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{folder / INDEX}: not a shard index ({error!r})") from error
    elif (folder / WEIGHTS).exists():
        shards = [WEIGHTS]
    else:
        raise InputError(f"{folder}: no weights; expected {WEIGHTS} or {INDEX}")
    files: dict[str, Path] = {}
    for shard in shards:
        if not (folder / shard).exists():
            raise InputError(f"{folder / INDEX}: names {shard}, which is missing; download the checkpoint again")
        with _open(folder / shard) as file:
            for name in file.keys():
                if name in files:
                    raise InputError(f"{folder}: tensor {name} is in both {files[name].name} and {shard}")
                files[name] = folder / shard
    return files


def _prefix(files: Mapping[str, Path], record: Architecture, folder: Path) -> str:
    first = record.tensors["q_proj"].format(0)
    for prefix in ("model.", ""):
        if prefix + first in files:
            return prefix
    raise InputError(f"{folder}: no tensor model.{first} or {first}; config and weights disagree")


def _stored_shapes(checkpoint: Checkpoint) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(family, tensor name, shape on disk) of every layer's roles; opens each file once."""
    wanted: dict[Path, list[tuple[str, str]]] = {}
    for family in checkpoint.families:
        for layer in range(checkpoint.shape.layers):
            name = checkpoint._name(family, layer)
            if name not in checkpoint.files:
                raise InputError(
                    f"{checkpoint.folder}: no tensor {name}, though the config says "
                    f"{checkpoint.shape.layers} layers; config and weights disagree"
                )
            wanted.setdefault(checkpoint.files[name], []).append((family, name))
    for path, roles in wanted.items():
        with _open(path) as file:
            for family, name in roles:
                yield family, name, tuple(file.get_slice(name).get_shape())


def _require_shapes(checkpoint: Checkpoint) -> None:
    for family, name, stored in _stored_shapes(checkpoint):
        expected = checkpoint.shape.of(family)
        if stored != expected:
            raise InputError(f"tensor {name}: shape {list(stored)}, but the config says {list(expected)}")
    beyond = checkpoint._name("q_proj", checkpoint.shape.layers)
    if beyond in checkpoint.files:
        raise InputError(
            f"{checkpoint.folder}: the weights hold more layers than the config's "
            f"{checkpoint.shape.layers} (found {beyond})"
        )
