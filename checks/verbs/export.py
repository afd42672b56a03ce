"""`fathom export`: a result in the form that others read."""

from __future__ import annotations

import argparse
from pathlib import Path

from checks import options

HELP = "a result as the published scripts wrote it"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("result", type=Path, metavar="RESULT", help="one model's folder of records, or its page")
    published = "what the published scripts wrote, key for key, by their formulas"
    parser.add_argument("--as-published", action="store_true", required=True, help=published)
    parser.add_argument("--model", required=True, metavar="MODEL", help="the checkpoint that was measured")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="the text that was read")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the files go (default: RESULT/published)")
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    from analyses.forward.calibration import load_calibration
    from analyses.weights.checkpoint import open_checkpoint
    from checks.export.as_published import write
    from checks.reference import source_of
    from checks.verify.compare import read_side

    side = read_side(arguments.result)
    checkpoint = open_checkpoint(source_of(arguments.model))
    given = arguments.result
    out = arguments.out or (given if given.is_dir() else given.parent) / "published"
    for path in write(side.found, checkpoint, load_calibration(arguments.calibration), out):
        options.say(arguments)(f"published: {path}")
    return options.OK
