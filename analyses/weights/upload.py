"""Weights brought to a device through two pinned buffers, so that reading the next overlaps computing with the last.

A copy from pinned memory is put on the device's own queue, and the processor goes on to read: it writes a buffer again
only after the copy out of it has ended. On a processor nothing is copied.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from analyses.errors import InputError

BUFFERS = 2


@contextmanager
def out_of_memory(what: str, option: str) -> Iterator[None]:
    """A device that has no memory left says so in one line: for what, and which option helps.

    Raises InputError for torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = str(error).partition(". GPU")[0].rstrip(".")
        raise InputError(f"{what}: the device has no memory left for it ({asked}); {option} helps") from None


class Upload:
    """Two pinned buffers, used in turn."""

    def __init__(self) -> None:
        self.turn = 0
        self.buffers: list[torch.Tensor | None] = [None] * BUFFERS
        self.ended: list[torch.cuda.Event | None] = [None] * BUFFERS

    def __call__(self, name: str, stored: torch.Tensor, device: str) -> torch.Tensor:
        """The tensor on a device; raises InputError naming it where there is no memory for it."""
        with out_of_memory(f"tensor {name}", "--layers FIRST:END, --families NAME or --device cpu"):
            if torch.device(device).type != "cuda":
                return stored.to(device)
            return self._queued(stored, device)

    def _queued(self, stored: torch.Tensor, device: str) -> torch.Tensor:
        at, self.turn = self.turn, (self.turn + 1) % BUFFERS
        if self.ended[at] is not None:
            self.ended[at].synchronize()
        if self.buffers[at] is None or self.buffers[at].numel() < stored.nbytes:
            self.buffers[at] = torch.empty(stored.nbytes, dtype=torch.uint8, pin_memory=True)
        pinned = self.buffers[at][: stored.nbytes].view(stored.dtype).view(stored.shape)
        there = pinned.copy_(stored).to(device, non_blocking=True)
        self.ended[at] = torch.cuda.Event()
        self.ended[at].record()
        return there


upload = Upload()  # of this process: analyses read one tensor after the other
