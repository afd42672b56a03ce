"""The one exception that means: the input is at fault, and this line says how."""


class InputError(ValueError):
    """Bad input, described in one line: the thing, what was expected, what to do.

    The command line prints the message alone and exits with 2.
    """
