"""One pickled weight file (`pytorch_model.bin`): its tensors without their data, and one at a time.

The file is unpickled by torch's loader for weights only, which runs no code that a file brings along. It
is memory-mapped, so that a tensor's pages are read when its entries are; a file of before torch 1.6, which
cannot be mapped, is read whole and kept until another one is, as is what a file of very many tensors holds.
"""

import functools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from analyses.errors import InputError, first_line
from analyses.weights.schema import Header

MANY = 1 << 19  # bytes of a pickle; some thousand tensors
LARGEST_PICKLE = 1 << 26  # bytes; of the models with most tensors a tenth
ZIP = b"PK\x03\x04"  # torch writes an archive since 1.6
GLOBAL = re.compile(r"Unsupported (?:global|class|operand): (?:GLOBAL )?(\S+)")  # what the loader will not unpickle


def headers(path: Path) -> tuple[dict[str, Header], dict[str, str]]:
    """(name → header of every tensor, in the order of the file; name → why it is none that can be read).

    Raises InputError for a file that holds no tensor by name.
    """
    by_name: dict[str, Header] = {}
    unreadable: dict[str, str] = {}
    first: dict[tuple[int, int], str] = {}  # (address, bytes) → the tensor that came first
    content = _load(path)
    for name, tensor in content.items():
        if why := _flaw(tensor):
            unreadable[name] = why
            continue
        size = tensor.numel() * tensor.element_size()
        shares = first.setdefault((tensor.data_ptr(), size), name)
        by_name[name] = Header(
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            bytes=size,
            shares=None if shares == name else shares,
        )
    if not by_name:
        name, why = next(iter(unreadable.items()))
        raise InputError(f"{path}: entry {name!r} {why}{_one_level_down(content)}")
    return by_name, unreadable


def read(path: Path, name: str, part: tuple[slice | int, ...] = ()) -> torch.Tensor:
    """One tensor as stored, or the part of it at these indices."""
    return _load(path)[name].detach()[part]


def _load(path: Path) -> dict[str, Any]:
    try:
        facts = path.stat()
        signature = (path, facts.st_size, facts.st_mtime_ns)
        return _kept(*signature) if _is_kept(*signature) else _unpickled(path)
    except InputError:
        raise
    except Exception as error:  # the loader raises whatever the bytes provoke
        raise InputError(f"{path}: cannot be read as weights ({_why(error)})") from error


@functools.lru_cache(maxsize=512)
def _is_kept(path: Path, size: int, changed: int) -> bool:
    """Whether a file's content is kept: one that cannot be mapped, or of so many tensors that unpickling takes long.

    Raises InputError for a file that would unpack to more than it is.
    """
    with open(path, "rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return True
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if (unpacked := sum(part.file_size for part in parts)) > size:
        raise InputError(f"{path}: its parts unpack to {unpacked:,} bytes, more than the file has; save it again")
    pickle = sum(part.file_size for part in parts if part.filename.endswith("data.pkl"))
    if pickle > LARGEST_PICKLE:
        raise InputError(f"{path}: its list of tensors has more than {LARGEST_PICKLE >> 20} MiB; this is no weight file")
    return pickle > MANY


@functools.lru_cache(maxsize=1)
def _kept(path: Path, size: int, changed: int) -> dict[str, Any]:
    """What a file holds; `size` and `changed` (ns) tell it from what may come in its place."""
    return _unpickled(path)


def _unpickled(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        mapped = file.read(len(ZIP)) == ZIP
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the loader finds odd in a damaged file: it then fails
        weights = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"{path}: holds {type(weights).__name__}, not tensors by name; this is no weight file")
    for name, value in weights.items():
        if not isinstance(name, str):
            what = f"entry {name!r} is {type(value).__name__}, without a name"
            raise InputError(f"{path}: {what}; this is no weight file")
    return weights


def _why(error: Exception) -> str:
    """The loader's reason without its advice to run the code after all."""
    if found := GLOBAL.search(str(error)):
        return f"beside tensors it holds {found[1]}, and only tensors are unpickled; save them as safetensors"
    line = first_line(error)
    return "the pickle is damaged, or none" if "weights_only" in str(error) else line


def _flaw(value: Any) -> str:
    """Why an entry is not a tensor whose entries are in the file, once each."""
    if not isinstance(value, torch.Tensor):
        return f"is {type(value).__name__}, not a tensor"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return "is sparse, quantised or empty of data; expected plain weights"
    if value.is_conj() or value.is_neg():
        return "is a view with its sign turned, whose entries are not in the file"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"of shape {list(value.shape)} is larger than its data"
    return ""


def _one_level_down(content: Mapping[str, Any]) -> str:
    """What to do where a trainer has put the tensors below a name of their own."""
    for name, value in content.items():
        if isinstance(value, dict) and any(isinstance(inner, torch.Tensor) for inner in value.values()):
            return f"; the tensors are below {name!r}: save that entry alone, as model.safetensors"
    return "; this is no weight file"
