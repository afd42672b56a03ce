"""The weight files of a folder: which tensors lie in which file, and one tensor read at a time.

Opening a folder reads headers only. Files are reopened for each tensor, because memory-mapped
handles that stay open count as resident memory for as long as they live.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from analyses.errors import InputError
from analyses.progress import Tick, silent
from analyses.weights import pickled, safetensors
from analyses.weights.schema import Header

FORMATS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""(single file, shard index), in the library's own order, so that a forward pass sees the same weights."""

JSON_LIMIT = 100_000_000  # bytes, as the limit of a safetensors header: no index or config comes near it
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # the narrower ones have no isfinite
DESCRIBED = ("*.json", "tokenizer*", "*.model", "*.tiktoken", "merges.txt", "vocab*")  # besides weights
HASH_BLOCK = 1 << 22  # bytes read at a time
FINITE_BLOCK = 1 << 22  # entries looked at a time


def index(folder: Path) -> tuple[dict[str, Path], dict[str, Header]]:
    """(tensor's name → file, tensor's name → header) of a folder's weights.

    Raises InputError for no weights, a shard that is missing, damaged or outside the folder, a
    tensor in two shards, or one that the index promises and no shard holds.
    """
    for single, sharded in FORMATS:
        if _is_there(folder / single):
            return merge(folder, {single: _headers(folder, single, single)}, {})
        if _is_there(folder / sharded):
            promised = shard_map(folder / sharded)
            shards = sorted(set(promised.values()))
            return merge(folder, {shard: _headers(folder, shard, sharded) for shard in shards}, promised)
    expected = ", ".join(name for pair in FORMATS for name in pair)
    raise InputError(f"{folder}: no weights; expected one of {expected}")


def merge(
    folder: Path, shards: Mapping[str, Mapping[str, Header]], promised: Mapping[str, str]
) -> tuple[dict[str, Path], dict[str, Header]]:
    """(tensor's name → file, tensor's name → header) of shards; `promised`: tensor → shard, as the index says."""
    files: dict[str, Path] = {}
    headers: dict[str, Header] = {}
    for shard, found in shards.items():
        for name, header in found.items():
            if name in files:
                raise InputError(f"{folder}: tensor {name} is in both {files[name].name} and {shard}")
            files[name], headers[name] = folder / shard, header
    for name, shard in promised.items():
        if name not in files or files[name].name != shard:
            raise InputError(f"{folder}: the index says that {shard} holds tensor {name}, but it does not")
    return files, headers


def shard_map(path: Path) -> dict[str, str]:
    """Tensor's name → shard's file name, from a shard index; no shard may lie outside the folder."""
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{path}: not a shard index; expected an object with a weight_map of tensors to files")
    for shard in weight_map.values():
        # A plain name: no folder, no "..", nothing that another system would read as one.
        if not isinstance(shard, str) or not shard.strip(". ") or any(c in shard for c in "/\\:\0"):
            raise InputError(f"{path}: {shard!r} is not the name of a file in this folder")
    return weight_map


def read(path: Path, name: str, part: tuple[slice | int, ...] = ()) -> torch.Tensor:
    """One tensor as stored, or the part of it at these indices without reading the rest."""
    return _reader(path).read(path, name, part)


def inspect(
    files: Mapping[str, Path], folder: Path, tick: Tick = silent
) -> tuple[dict[str, str], str]:
    """sha256 of every weight file, tokenizer and config by file name, and the digest of the tensors alone.

    The latter is the same for the same tensors under other file names, in other shards, or in another
    format: sha256 over each tensor's name, type, shape and bytes, in the order of names.

    Raises InputError naming the first tensor that holds a NaN or an infinity.
    """
    described = described_files(files, folder)
    steps = len(files) + len(described)
    content = hashlib.sha256()
    for done, name in enumerate(sorted(files), 1):
        tensor = read(files[name], name)
        require_finite(name, tensor)
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)} {_bytes_digest(tensor)}\n".encode())
        tick(done, steps)
    hashes = {}
    for done, path in enumerate(described, len(files) + 1):
        hashes[path.name] = sha256(path)
        tick(done, steps)
    return hashes, content.hexdigest()


def _bytes_digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def described_files(files: Mapping[str, Path], folder: Path) -> list[Path]:
    """The files that make a checkpoint what it is."""
    return sorted(set(files.values()).union(*(folder.glob(pattern) for pattern in DESCRIBED)))


def require_finite(name: str, tensor: torch.Tensor) -> None:
    """Raise InputError, naming the tensor and counting the entries, unless all of it is finite."""
    if tensor.dtype not in FLOATS:
        return
    if not tensor.numel() or all(torch.isfinite(end) for end in torch.aminmax(tensor)):  # 30 times as fast as a mask
        return
    flat = tensor.reshape(-1)  # in blocks: the masks of a whole embedding would be as large as itself
    bad = sum(part.numel() - int(torch.isfinite(part).sum()) for part in flat.split(FINITE_BLOCK))
    if bad:
        total = tensor.numel()
        raise InputError(f"tensor {name}: {bad} of {total} entries are NaN or infinite; the checkpoint is damaged")


def sha256(path: Path) -> str:
    """Of a file's bytes; raises InputError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(HASH_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; raises InputError for anything else."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: missing, or not a file")
        if path.stat().st_size > JSON_LIMIT:
            raise InputError(f"{path}: more than {JSON_LIMIT // 10**6} MB; this is no config and no index")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def _headers(folder: Path, shard: str, named_by: str) -> dict[str, Header]:
    path = folder / shard
    if not _is_there(path):
        raise InputError(f"{folder / named_by}: names {shard}, which is missing; download the checkpoint again")
    if not path.is_file():
        what = "a link to a file that is missing" if path.is_symlink() and not path.exists() else "not a file"
        raise InputError(f"{path}: is {what}; download the checkpoint again")
    return _reader(path).headers(path)


def _is_there(path: Path) -> bool:
    try:
        return path.is_symlink() or path.exists()
    except (OSError, ValueError):  # a name that no file can have: too long, or not text
        return False


def _reader(path: Path) -> Any:
    """The module that knows a file's format, by its suffix as the library does."""
    return pickled if path.suffix == ".bin" else safetensors
