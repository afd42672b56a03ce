"""Standard output and error as they are found: of few characters, full, or a pipe whose reader has left."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

READER_LEFT = 141  # exit code, as of a process that SIGPIPE ends
FAILED = 2


def forgiving(main: Callable[..., int]) -> Callable[..., int]:
    """A command that writes what the streams cannot show as escapes, and whose streams' failures are at most a line."""

    @functools.wraps(main)
    def run(*arguments: Any) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # not where a test has put its own
                stream.reconfigure(errors="backslashreplace")
        try:
            code = main(*arguments)
        except BrokenPipeError:
            return _silenced(READER_LEFT)
        except SystemExit:  # of --help, which has written before it ends
            if failed := _flushed():
                return failed
            raise
        return _flushed() or code

    return run


def _flushed() -> int:
    """0, or the code to end with where what was written has no place."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _silenced(READER_LEFT)
    except OSError as error:
        print(f"fathom: standard output cannot be written ({error.strerror})", file=sys.stderr)
        return _silenced(FAILED)
    return 0


def _silenced(code: int) -> int:
    """The code, with nothing left for the interpreter to complain of when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
