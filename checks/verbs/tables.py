"""`fathom tables`: the numbers of results as CSV or Parquet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.errors import InputError
from checks import options

if TYPE_CHECKING:
    from checks.tables.tables import Table

HELP = "the numbers of results as CSV or Parquet: heads, planes, layers, pairs, writes, claims"


def arguments(parser: argparse.ArgumentParser) -> None:
    result = "a folder or page of one model, or a folder over several"
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help=result)
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    parser.add_argument("--only", metavar="TABLE,…", help="these tables alone")
    parser.add_argument("--claim", metavar="ID", help="one claim alone: its number, interval and words in every model")
    plot = "with --claim: draw it against parameters or training steps, with its intervals and its limit"
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help=plot)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where they go (default: `tables` beside the first)")
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    from checks.tables.across import across, family
    from checks.tables.files import write
    from checks.tables.tables import NAMES, stacked, table
    from checks.verify.compare import read_side

    if arguments.plot and (not arguments.claim or arguments.plot.suffix != ".svg"):
        raise InputError("--plot: expected --claim ID beside it, and a file that ends in .svg")
    results = [read_side(found) for given in arguments.results for found in _results(given)]
    given = arguments.results[0]
    out = arguments.out or (given if given.is_dir() else given.parent) / "tables"
    say = options.say(arguments)

    def keep(made: Table) -> None:
        write(made, out / f"{made.name}.{arguments.format}")
        say(f"table: {out / made.name}.{arguments.format}")

    if arguments.claim:
        judged = [(result.manifest, result.judged) for result in results]
        keep(across(arguments.claim, judged))
        if arguments.plot:
            _draw(family(arguments.claim, judged), arguments.plot)
            say(f"plot: {arguments.plot}")
        return options.OK
    names = arguments.only.split(",") if arguments.only else NAMES
    written = 0
    for name in names:
        tables = []
        for result in results:
            try:
                tables.append(table(name, result.found, result.judged))
            except InputError as error:
                if name not in NAMES:
                    raise
                say(f"no table {name}: {error}")
        if tables:
            keep(stacked(tables))
            written += 1
    return options.OK if written else options.NOTHING


def _draw(table: Table, path: Path) -> None:
    from analyses.records import write_bytes
    from checks.figures.family import figure
    from checks.report.drawings import svg

    write_bytes(path, svg(figure(table), 180).encode())


def _results(given: Path) -> list[Path]:
    from checks.verbs.report import models_under

    return [given] if given.is_file() or (given / "manifest.json").exists() else models_under(given)
