"""One safetensors file: its header, its tensors one at a time, and the bytes of a new file."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from analyses.errors import InputError, first_line
from analyses.weights.schema import Header

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""The format's name of a type → torch's. Floats of 8 bits and fewer are left out: they are quantised weights."""

ALIGNED = 8  # bytes: where the first tensor begins is a multiple of it


def headers(path: Path) -> tuple[dict[str, Header], dict[str, str]]:
    """(name → header of every tensor, in the order of the file; name → why it cannot be read, of none)."""
    return {name: header(entry) for name, entry in _entries(path)[1].items()}, {}


def header(entry: dict[str, Any]) -> Header:
    """One tensor's entry of a safetensors header."""
    start, end = entry["data_offsets"]
    dtype = DTYPES.get(entry["dtype"], entry["dtype"])
    return Header(shape=tuple(entry["shape"]), dtype=dtype, bytes=end - start)


def read(path: Path, name: str, part: tuple[slice | int, ...] = ()) -> torch.Tensor:
    """One tensor as stored, or the part of it at these indices."""
    first, entries = _entries(path)
    dtype = DTYPES.get(entries[name]["dtype"])
    if part or dtype is None:
        with _open(path) as file:
            return file.get_slice(name)[part] if part else file.get_tensor(name)
    start, end = entries[name]["data_offsets"]
    data = torch.empty(end - start, dtype=torch.uint8)
    try:
        with open(path, "rb") as file:
            file.seek(first + start)
            if file.readinto(memoryview(data.numpy())) != end - start:
                raise InputError(f"{path}: ends within tensor {name}; it was changed while it was read")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return data.view(getattr(torch, dtype)).reshape(entries[name]["shape"])


def _entries(path: Path) -> tuple[int, dict[str, Any]]:
    """(where the data begin, name → entry of the header); of a file that has not changed it is parsed once."""
    try:
        facts = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return _parsed(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.lru_cache(maxsize=512)
def _parsed(path: Path, size: int, changed: int, inode: int) -> tuple[int, dict[str, Any]]:
    with _open(path):  # the library checks sizes, types and offsets against the file's length
        pass
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tree = json.loads(file.read(length), object_pairs_hook=lambda pairs: _once(path, pairs))
    return 8 + length, {name: entry for name, entry in tree.items() if name != "__metadata__"}


def as_file(tensors: Mapping[str, torch.Tensor]) -> list[bytes | memoryview]:
    """A file's bytes in parts, as the library writes them, of floats on a CPU; the tensors are not copied."""
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    tree, start, parts = {}, 0, []
    for name in names:
        value = tensors[name].contiguous()
        dtype = next(stored for stored, known in DTYPES.items() if known == str(value.dtype).removeprefix("torch."))
        tree[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [start, start + value.nbytes]}
        parts.append(memoryview(value.flatten().view(torch.uint8).numpy()))
        start += value.nbytes
    header = json.dumps(tree, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNED)
    return [len(header).to_bytes(8, "little") + header, *parts]


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({first_line(error)}); download it again") from error


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the header; the library silently takes the last of two tensors of one name."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        if name in tree:
            raise InputError(f"{path}: the header holds {name} twice; the file is damaged")
        tree[name] = value
    return tree
