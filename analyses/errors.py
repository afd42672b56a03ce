"""The exception for faulty input, whose message says in one line what is wrong."""

LEFT_OUT = "left out of this measurement"
"""In every reason that the user gave by an option: the model may well have what is missing."""

DEFECT = "a defect of Fathom; --debug shows where"


class InputError(ValueError):
    """Bad input, described in one line: the thing, what was expected, what to do.

    The command line prints the message alone and exits with 2. Names of tensors and files are
    quoted from the input, so line ends and control characters in them are written as escapes.
    """

    def __init__(self, message: str):
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__("".join(escaped))


def one_line(error: BaseException) -> str:
    """Any exception as one line: a message of ours as it is, another with its class in front."""
    text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return str(InputError(" ".join(text.split()).removesuffix(":") or type(error).__name__))


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the error's class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
