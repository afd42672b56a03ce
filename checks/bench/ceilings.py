"""Rates that no program on this machine exceeds, measured where the analyses run."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

SIDE = 2048  # of the square products: large enough for the full rate, 50 MB in float64
READ_BYTES = 256 << 20  # of the bandwidth test: no cache holds it
REPEATS = 5
BATCH = (16, 256)  # symmetric matrices and their side: the heads of a layer, at head dimension 128


def best(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least seconds of several runs: everything else that the machine does only adds to them."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(files: list[Path], *, side: int = SIDE, read_bytes: int = READ_BYTES) -> dict[str, float]:
    """Name → rate, in operations or bytes a second. files : of the checkpoint, for the file system's cache."""
    memory = torch.ones(read_bytes // 8, dtype=torch.float64)
    return {
        "float32_products": _products(torch.float32, side),
        "float64_products": _products(torch.float64, side),
        "float64_eigenvalues": _eigenvalues(),
        "memory_read": read_bytes / best(memory.sum),
        "file_read": sum(f.stat().st_size for f in files) / best(lambda: [_read(f) for f in files], 2),
    }


def gram(matrix: torch.Tensor) -> np.ndarray:
    """The bare library call for the Gram matrix of the smaller side."""
    rows = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT).numpy()
    return rows @ rows.T


def eigenvalues(symmetric: np.ndarray) -> np.ndarray:
    """The bare library call for symmetric eigenvalues, here the faster of NumPy's and torch's."""
    return np.linalg.eigvalsh(symmetric)


def _products(dtype: torch.dtype, side: int) -> float:
    """Of the faster of the two libraries at hand."""
    a = torch.randn(side, side, dtype=dtype)
    return 2 * side**3 / min(best(lambda: a @ a), best(lambda: a.numpy() @ a.numpy().T.copy()))


def _eigenvalues() -> float:
    """Of a batch of symmetric matrices, 4/3·side³ operations each."""
    count, side = BATCH
    batch = torch.randn(count, side, side, dtype=torch.float64)
    symmetric = (batch + batch.mT).numpy()
    return count * 4 / 3 * side**3 / best(lambda: eigenvalues(symmetric))


def _read(path: Path) -> None:
    buffer = bytearray(1 << 22)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
