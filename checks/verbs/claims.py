"""`fathom claims`: what a claim of your own may read, whether a file of claims is sound, and the line that fixes it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analyses.errors import InputError
from checks import options

HELP = "claims of your own: list what they may read, check a file, register it"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("check", "register"))
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a .toml file of claims")
    parser.add_argument("--list", action="store_true", help="every path with its meaning, axes, unit and invariance")
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    from checks.own.paths import readable
    from checks.own.registered import counted, line, now
    from checks.own.statement import problems_of, read, text_of

    if arguments.list:
        for one in readable().values():
            axes = f" over {', '.join(one.axes)}" if one.axes else ""
            unit = f" [{one.unit}]" if one.unit else ""
            print(f"{one.path}{axes}{unit}\n    {one.meaning}\n    {_INVARIANT[one.invariant]}: {one.why}")
        return options.OK
    if not arguments.action or not arguments.file:
        raise InputError("claims: expected `check FILE`, `register FILE` or `--list`")
    if arguments.action == "register":
        print(line(read(arguments.file), now()))
        return options.OK
    problems = problems_of(text_of(arguments.file))
    for problem in problems:
        print(f"fathom: {arguments.file}: {problem}", file=sys.stderr)
    if not problems:
        options.say(arguments)(f"{arguments.file}: {counted(read(arguments.file))}, sound")
    return options.ERROR if problems else options.OK


_INVARIANT = {
    True: "a claim on it is about the model",
    False: "a claim on it is about the stored coordinates",
    None: "a claim on it counts as one about the stored coordinates",
}
