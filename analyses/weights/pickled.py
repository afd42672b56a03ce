"""One pickled weight file (`pytorch_model.bin`): its tensors without their data, and one at a time.

The file is memory-mapped and unpickled by torch's loader for weights only, which runs no code that
a file brings along; a tensor's pages are read when its entries are.
"""

import warnings
from pathlib import Path

import torch

from analyses.errors import InputError, first_line
from analyses.weights.schema import Header

ZIP = b"PK\x03\x04"  # torch writes an archive since 1.6; what it wrote before cannot be mapped


def headers(path: Path) -> dict[str, Header]:
    """Name → header of every tensor, in the order of the file."""
    by_name: dict[str, Header] = {}
    first: dict[tuple[int, int], str] = {}  # (address, bytes) → the tensor that came first
    for name, tensor in _load(path).items():
        size = tensor.numel() * tensor.element_size()
        shares = first.setdefault((tensor.data_ptr(), size), name)
        by_name[name] = Header(
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            bytes=size,
            shares=None if shares == name else shares,
        )
    return by_name


def read(path: Path, name: str, part: tuple[slice | int, ...] = ()) -> torch.Tensor:
    """One tensor as stored, or the part of it at these indices."""
    return _load(path)[name].detach()[part]


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        with open(path, "rb") as file:
            archive = file.read(len(ZIP)) == ZIP
        if not archive:
            raise InputError(
                f"{path}: not an archive of torch.save, and a pickle is not opened otherwise: "
                "save the weights as safetensors"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the loader finds odd in a damaged file: it then fails
            weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except InputError:
        raise
    except Exception as error:  # the loader raises whatever the bytes provoke
        raise InputError(f"{path}: cannot be read as weights ({first_line(error)})") from error
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"{path}: holds {type(weights).__name__}, not tensors by name; this is no weight file")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: entry {name!r} is {type(value).__name__}, not a tensor; this is no weight file")
        _require_plain(path, name, value)
    return weights


def _require_plain(path: Path, name: str, value: torch.Tensor) -> None:
    """A tensor whose entries are in the file, once each."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise InputError(f"{path}: tensor {name} is sparse, quantised or empty of data; expected plain weights")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(f"{path}: tensor {name} of shape {list(value.shape)} is larger than its data")
