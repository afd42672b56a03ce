"""Which tensors lie in which files, and one of them at a time.

Opening a folder reads headers only. Files are reopened for each tensor, because memory-mapped
handles that stay open count as resident memory for as long as they live.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from analyses.errors import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HASH_BLOCK = 1 << 22  # bytes read at a time

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""A safetensors header's name of a type → torch's; the others are quantised formats and keep their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of one tensor before any of it is read."""

    shape: tuple[int, ...]
    dtype: str  # torch's name


def index(folder: Path) -> tuple[dict[str, Path], dict[str, Header]]:
    """(tensor's name → file, tensor's name → header) of a folder's weights.

    Raises InputError for no weights, a shard that is missing or damaged, or a tensor in two shards.
    """
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
    headers: dict[str, Header] = {}
    for shard in shards:
        if not (folder / shard).exists():
            raise InputError(f"{folder / INDEX}: names {shard}, which is missing; download the checkpoint again")
        for name, header in _headers(folder / shard).items():
            if name in files:
                raise InputError(f"{folder}: tensor {name} is in both {files[name].name} and {shard}")
            files[name], headers[name] = folder / shard, header
    return files, headers


def read(path: Path, name: str) -> torch.Tensor:
    """One tensor as stored."""
    with _open(path) as file:
        return file.get_tensor(name)


def _headers(path: Path) -> dict[str, Header]:
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        return {
            name: Header(shape=tuple(s.get_shape()), dtype=DTYPES.get(s.get_dtype(), s.get_dtype()))
            for name, s in slices.items()
        }


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from error


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


def inspect(files: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """sha256 of every weight file, tokenizer and config, by file name; reads every byte once.

    Raises InputError naming the first tensor that holds a NaN or an infinity.
    """
    for name in sorted(files):
        require_finite(name, read(files[name], name))
    described = set(files.values()) | set(folder.glob("*.json"))
    return {path.name: sha256(path) for path in sorted(described)}
