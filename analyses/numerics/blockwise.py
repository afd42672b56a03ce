"""Sums over the entries of large tensors in float64, block by block, without a tensor ever being float64.

A block of each tensor at a time is upcast into a buffer that stays in a core's cache, so that memory is read as stored
and once. What the blocks give is added exactly. One thread does it all: to wake another takes 50 µs on a virtual
machine, as long as eight operations on a block, and on a busy one up to a hundred times that.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

BLOCK = 1 << 15  # entries, 256 kB in float64; torch works on so many in the calling thread
RUN = 1 << 13  # entries of one inner product; OpenBLAS works on 10,000 with one thread, on more with all

Terms = Callable[..., tuple[float, ...]]
"""Blocks of each tensor, (entry,) float64 → terms of sums. Blocks may be changed, unless the tensors are float64."""


def sums(terms: Terms, *tensors: torch.Tensor) -> tuple[float, ...]:
    """Each of the terms, added over all entries.

    Parameters
    ----------
    tensors : contiguous, of one size, on one device; upcast exactly. Elsewhere than on a CPU one block is all of it.
    """
    return tuple(math.fsum(values) for values in zip(*(terms(*blocks) for blocks in _blocks(*tensors)), strict=True))


def write(out: torch.Tensor, entry: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """`out` with entries made from those of the tensors, as by `sums`."""
    for start, blocks in zip(range(0, out.numel(), BLOCK), _blocks(*tensors), strict=False):
        made = entry(*blocks)
        out.view(-1)[start : start + len(made)] = made
    return out


def dot(x: torch.Tensor, y: torch.Tensor) -> float:
    """⟨x, y⟩ of two blocks. On a CPU by NumPy, in runs so short that its BLAS wakes no second thread for them."""
    if x.device.type != "cpu":
        return float(x @ y)
    runs = (-1, RUN) if len(x) % RUN == 0 else (1, -1)
    return float(np.vecdot(x.numpy().reshape(runs), y.numpy().reshape(runs)).sum())


def row_squares(rows: torch.Tensor) -> torch.Tensor:
    """‖row‖² of a (row, entry) matrix, (row,) float64, upcast a few rows at a time; rows may lie across memory."""
    if rows.device.type != "cpu":
        return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64).square()
    blocks = (block.double().numpy() for block in rows.split(max(1, 2 * BLOCK // rows.shape[1])))
    return torch.from_numpy(np.concatenate([np.vecdot(block, block) for block in blocks]))


def _blocks(*tensors: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    flat = [tensor.view(-1) for tensor in tensors]
    if flat[0].device.type != "cpu":
        yield [tensor.double() for tensor in flat]
        return
    buffers = [torch.empty(min(BLOCK, len(tensor)), dtype=torch.float64) for tensor in flat]
    for stored in zip(*(tensor.split(BLOCK) for tensor in flat), strict=True):
        yield [
            block if block.dtype == torch.float64 else buffer[: len(block)].copy_(block)
            for block, buffer in zip(stored, buffers, strict=True)
        ]
