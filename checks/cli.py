"""The command line: parse, hand over to the verb, exit code. Thin on purpose."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from analyses.errors import DEFECT, InputError, one_line
from checks.machine import terminal, threads
from checks.options import ERROR
from checks.verbs import VERBS


@terminal.forgiving
def main(argv: Sequence[str] | None = None) -> int:
    threads.sleep_while_waiting()
    try:
        arguments = parse(argv)
    except Misuse as error:
        print(f"fathom: {error}", file=sys.stderr)
        raise SystemExit(ERROR) from None
    try:
        return arguments.verb(arguments)
    except BrokenPipeError:
        raise  # whoever read has seen enough
    except InputError as error:
        if getattr(arguments, "debug", False):
            raise
        print(f"fathom: {error}", file=sys.stderr)
        return ERROR
    except Exception as error:  # a defect of ours, but never a traceback, and never the code of a broken identity
        if getattr(arguments, "debug", False):
            raise
        print(f"fathom: {one_line(error)} ({DEFECT})", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        print("fathom: interrupted", file=sys.stderr)
        return 130


class Misuse(InputError):
    """A command that there is not, or an option with a value that it cannot have."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise Misuse(f"{message}; see `{self.prog} --help`")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command, with its verb; raises Misuse for one that there is not."""
    return _parser().parse_args(argv)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fathom", description="Test and report claims about the geometry of transformers.", allow_abbrev=False
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name in VERBS:
        verb = import_module(f"checks.verbs.{name}")
        own = verbs.add_parser(name, help=verb.HELP, allow_abbrev=False)
        verb.arguments(own)
        own.set_defaults(verb=verb.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
