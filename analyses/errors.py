"""The exception for faulty input, whose message says in one line what is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

LEFT_OUT = "left out of this measurement"
"""In every reason that the user gave by an option: the model may well have what is missing."""

DEFECT = "a defect of Fathom; --debug shows where"


class InputError(ValueError):
    """Bad input, described in one line: the thing, what was expected, what to do.

    The command line prints the message alone and exits with 2. Names of tensors and files are
    quoted from the input, so line ends and control characters in them are written as escapes.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """A line for a terminal: line ends, control characters and halves of characters written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def received(what: str) -> Iterator[None]:
    """While something is looked at that others wrote: what fails then is its fault, and one line.

    The types of its values are known to be right (`analyses.shapes`); that lists are as long as they should be, or
    that a name leads somewhere, is only seen where it is used.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{what}: its values do not fit together ({told}); measure again") from error


def one_line(error: BaseException) -> str:
    """Any exception as one line: a message of ours as it is, another with its class in front."""
    text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return str(InputError(" ".join(text.split()).removesuffix(":") or type(error).__name__))


def panic(error: BaseException) -> Exception:
    """An exception that is none of Exception, as an ordinary one; raises it where it is a wish to stop."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    return RuntimeError(f"{type(error).__name__}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the error's class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
