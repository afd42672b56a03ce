"""Threads of the numeric libraries: how many, and what they do while they wait.

Both are said in the environment, which the libraries read once, when they are loaded. torch and NumPy each bring
threads of their own, and both kinds spin while they wait for more to do, on the cores that the others need: torch's
without end, NumPy's for 20 ms. Asleep at once, and after a third of a millisecond, they halve a forward pass with its
probes and take a quarter off the spectra of heads; no number depends on it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

NARROW = 512  # as wide a stream or wider has enough to do for several threads
COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def sleep_while_waiting() -> None:
    """In this process, if it has not loaded them yet, and in those it starts; what the user set stands."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")  # 2²⁰ cycles


def limit(count: int) -> None:
    """So many threads, and they sleep, in this process and in those it starts."""
    sleep_while_waiting()
    os.environ.update(dict.fromkeys(COUNTS, str(count)))


def are_limited(count: int) -> bool:
    """Whether `limit` was called with this number, or the environment said so from the start."""
    return all(os.environ.get(name) == str(count) for name in COUNTS)


def for_stream(hidden: int, usual: int) -> int:
    """Threads of torch for a model of this stream width: `usual` ones, or one where it is narrow.

    Of a narrow model a call ends before a second thread has woken: the reference model takes 17 CPU seconds with one
    thread and 25 with two, and on the clock no less. What the environment says stands.
    """
    return usual if hidden >= NARROW or any(name in os.environ for name in COUNTS) else 1


@contextmanager
def threads(count: int) -> Iterator[int]:
    """This many threads of torch, for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)
