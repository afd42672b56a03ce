"""The exception for faulty input, whose message says in one line what is wrong."""


class InputError(ValueError):
    """Bad input, described in one line: the thing, what was expected, what to do.

    The command line prints the message alone and exits with 2. Names of tensors and files are
    quoted from the input, so line ends and control characters in them are written as escapes.
    """

    def __init__(self, message: str):
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__("".join(escaped))


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the error's class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
