"""Threads of the numeric libraries: how many, and what they do while they wait.

Both are said in the environment, which the libraries read once, when they are loaded. torch and NumPy each bring
threads of their own, and those of torch spin while they wait: on two cores they keep NumPy's products from running.
Asleep they halve a forward pass with its probes; no number depends on it.
"""

import os

COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def sleep_while_waiting() -> None:
    """In this process, if it has not loaded them yet, and in those it starts; what the user set stands."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def limit(count: int) -> None:
    """So many threads, and they sleep, in this process and in those it starts."""
    sleep_while_waiting()
    os.environ.update(dict.fromkeys(COUNTS, str(count)))


def are_limited(count: int) -> bool:
    """Whether `limit` was called with this number, or the environment said so from the start."""
    return all(os.environ.get(name) == str(count) for name in COUNTS)
