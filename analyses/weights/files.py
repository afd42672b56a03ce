"""The weight files of a folder: which tensors lie in which file, and one tensor read at a time.

Opening a folder reads headers only. Files are reopened for each tensor, because memory-mapped
handles that stay open count as resident memory for as long as they live.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from analyses.errors import InputError
from analyses.progress import Tick, silent
from analyses.weights import elsewhere, pickled, safetensors
from analyses.weights.schema import Header
from analyses.weights.wrappers import unwrapped

FORMATS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""(single file, shard index), in the library's own order, so that a forward pass sees the same weights."""

MOST_TENSORS = 400_000  # of a checkpoint; those with most experts have some 100,000
JSON_LIMIT = 100_000_000  # bytes, as the limit of a safetensors header: no index or config comes near it
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # the narrower ones have no isfinite
DESCRIBED = ("*.json", "tokenizer*", "*.model", "*.tiktoken", "merges.txt", "vocab*")  # besides weights
HASH_BLOCK = 1 << 22  # bytes read at a time
FINITE_BLOCK = 1 << 22  # entries looked at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What weight files hold, and what of it cannot be read.

    What is lost matters to whoever reads it: a part of the model that nothing here reads may be missing.
    """

    files: Mapping[str, Path]  # tensor's name → file
    headers: Mapping[str, Header]  # tensor's name → header
    lost: Mapping[str, str] = field(default_factory=dict)  # tensor's name → why it cannot be read
    notes: tuple[str, ...] = ()  # what a reader must know of the files


Shard = tuple[Mapping[str, Header], Mapping[str, str]]  # what a file holds, and what it holds in no readable form


def index(folder: Path) -> Stored:
    """The tensors of a folder's weights, by the names that they have in the model itself.

    Raises InputError for no weights, for shards none of which can be read, for an index that is none, and
    for a tensor in two files of which the index names neither.
    """
    for single, sharded in FORMATS:
        if _is_there(folder / single):
            return merge(folder, {single: _headers(folder, single, single)}, {}, _stray(folder, single, sharded))
        if _is_there(folder / sharded):
            promised = shard_map(folder / sharded)
            shards = sorted(set(promised.values()))
            return merge(folder, {shard: _shard(folder, shard, sharded) for shard in shards}, promised)
    expected = ", ".join(name for pair in FORMATS for name in pair)
    raise InputError(f"{folder}: no weights; expected one of {expected}{elsewhere.instead(folder)}")


def merge(
    folder: Path,
    shards: Mapping[str, Shard | InputError],
    promised: Mapping[str, str],
    notes: tuple[str, ...] = (),
) -> Stored:
    """The tensors of several files.

    Parameters
    ----------
    shards : file name → what it holds, or why it cannot be read.
    promised : tensor → shard, as the index says; of a tensor in two files the one named here counts.
    """
    promised = {unwrapped(name): shard for name, shard in promised.items()}
    files: dict[str, Path] = {}
    headers: dict[str, Header] = {}
    lost: dict[str, str] = {}
    unread = {shard: found for shard, found in shards.items() if isinstance(found, InputError)}
    if len(unread) == len(shards):
        raise next(iter(unread.values()))
    for shard in sorted(shards.keys() - unread.keys()):
        found, unreadable = shards[shard]
        inside: dict[str, str] = {}  # name → name in this file
        for stored, header in found.items():
            name = unwrapped(stored)
            if (other := inside.setdefault(name, stored)) != stored:
                raise InputError(f"{folder / shard}: tensor {name} is there twice, as {other} and as {stored}")
            if name in files and promised.get(name) not in (shard, files[name].name):
                raise InputError(f"{folder}: tensor {name} is in both {files[name].name} and {shard}")
            if name not in files or promised[name] == shard:
                shares = header.shares and unwrapped(header.shares)
                headers[name] = replace(header, shares=shares, stored=None if name == stored else stored)
                files[name] = folder / shard
        lost |= {unwrapped(name): f"{folder / shard}: tensor {name} {why}" for name, why in unreadable.items()}
    if len(files) > MOST_TENSORS:
        raise InputError(f"{folder}: {len(files):,} tensors, and no model has more than {MOST_TENSORS:,}")
    for name, shard in promised.items():
        if shard in unread:
            lost[name] = str(unread[shard])
        elif name not in files or files[name].name != shard:
            lost.setdefault(name, f"{folder}: the index says that {shard} holds tensor {name}, but it does not")
    return Stored(files=files, headers=headers, lost={n: why for n, why in lost.items() if n not in files}, notes=notes)


def _stray(folder: Path, single: str, sharded: str) -> tuple[str, ...]:
    """What to say of shards that the one file beside them keeps from being read."""
    stem, suffix = single.split(".")
    shards = [path.name for path in folder.glob(f"{stem}-*-of-*.{suffix}")]
    if not shards and not _is_there(folder / sharded):
        return ()
    return (
        f"{single} was read, as the library does where it stands beside shards, and they were not; "
        "if it is a leftover, remove it",
    )


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
    stored: Stored, folder: Path, tick: Tick = silent, *, matters: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, str], str, list[str]]:
    """sha256 of every weight file, tokenizer and config by file name, the digest of the tensors alone, and notes.

    The digest is the same for the same tensors under other file names, in other shards, or in another
    format: sha256 over each tensor's name, type, shape and bytes, in the order of names.

    Raises InputError naming the first tensor that `matters` and holds a NaN or an infinity; another is noted.
    """
    files, notes = stored.files, []
    described = described_files(files, folder)
    steps = len(files) + len(described)
    content = hashlib.sha256()
    for done, name in enumerate(sorted(files), 1):
        tensor = read(files[name], stored.headers[name].stored or name)
        try:
            require_finite(name, tensor)
        except InputError as error:
            if matters(name):
                raise
            notes.append(str(error).replace("; the checkpoint is damaged", ", and no analysis reads it."))
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)} {_bytes_digest(tensor)}\n".encode())
        tick(done, steps)
    hashes = {}
    for done, path in enumerate(described, len(files) + 1):
        hashes[path.name] = sha256(path)
        tick(done, steps)
    return hashes, content.hexdigest(), notes


def _bytes_digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def described_files(files: Mapping[str, Path], folder: Path) -> list[Path]:
    """The files that make a checkpoint what it is."""
    return sorted(set(files.values()).union(*(folder.glob(pattern) for pattern in DESCRIBED)))


def require_finite(name: str, tensor: torch.Tensor) -> None:
    """Raise InputError, naming the tensor and counting the entries, unless all of it is finite."""
    if tensor.dtype not in FLOATS:
        return
    if not tensor.numel() or all(math.isfinite(end.item()) for end in torch.aminmax(tensor)):  # a mask takes 30 times
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
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file; remove it, or download the checkpoint again")
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
        elsewhere.require_itself(path)
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def _shard(folder: Path, shard: str, named_by: str) -> Shard | InputError:
    try:
        return _headers(folder, shard, named_by)
    except InputError as error:
        return error


def _headers(folder: Path, shard: str, named_by: str) -> Shard:
    path = folder / shard
    if not _is_there(path):
        stem, suffix = named_by.split(".")[:2]
        others = sorted(other.name for other in folder.glob(f"{stem}-*-of-*.{suffix}"))
        what = f"the folder holds {others[0]}, so index and shards are of two versions; " if others else ""
        raise InputError(f"{folder / named_by}: names {shard}, which is missing; {what}download the checkpoint again")
    if not path.is_file():
        what = "a link to a file that is missing" if path.is_symlink() and not path.exists() else "not a file"
        raise InputError(f"{path}: is {what}; download the checkpoint again")
    elsewhere.require_itself(path)
    return _reader(path).headers(path)


def _is_there(path: Path) -> bool:
    try:
        return path.is_symlink() or path.exists()
    except (OSError, ValueError):  # a name that no file can have: too long, or not text
        return False


def _reader(path: Path) -> Any:
    """The module that knows a file's format, by its suffix as the library does."""
    return pickled if path.suffix == ".bin" else safetensors
