"""Memory that the C library keeps after arrays are freed, given back to the system.

Freed blocks of up to 32 MB are kept for later ones, which may need other sizes; between parts of an analysis that keep
adds up to as much as is held.
"""

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's own call; None where the C library is another."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def release() -> None:
    """Give back what is free. Numbers do not know it."""
    if trim := _trim():
        trim(0)
