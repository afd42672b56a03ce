"""`fathom run`: measure models, judge them, render their pages and one index."""

from __future__ import annotations

import argparse

from checks import options
from checks.verbs.measure import measure_all
from checks.verbs.report import models_under, report_all

HELP = "measure models, judge them, render their pages and one index"


def arguments(parser: argparse.ArgumentParser) -> None:
    options.models(parser)
    parser.add_argument(
        "--exact-index", action="store_true", help="the index lists these models alone, not all in --out"
    )
    options.measuring(parser)
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    folders, code = measure_all(arguments)
    if not folders:
        return code
    indexed = folders if arguments.exact_index else models_under(arguments.out)
    return max(code, report_all(folders, indexed, arguments))
