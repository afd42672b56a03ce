"""`fathom figures`: every figure of a report as a drawing for a paper, and its numbers as CSV, from records alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from checks import options

HELP = "every figure of these records as SVG, PNG or PDF, and its numbers as CSV; no model needed"
FORMATS = ("svg", "png", "pdf")
WIDTHS = (85, 180)  # as in checks.figures.export, whose import reads the style sheet
MISSING = "PNG and PDF are made by CairoSVG: `pip install 'fathom-geometry[figures]'`, or take --format svg"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a model's folder of records")
    parser.add_argument("--format", choices=FORMATS, default="svg")
    parser.add_argument("--width", type=int, choices=WIDTHS, default=180, help="in mm: one or two columns of a paper")
    parser.add_argument("--out", type=Path, help="folder of the drawings (default: DIR/figures)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def run(arguments: argparse.Namespace) -> int:
    from analyses.records import write_bytes
    from checks.report.drawings import figures_of, numbers, svg

    converted = _converter(arguments.format)
    out = arguments.out or arguments.folder / "figures"
    figures = figures_of(arguments.folder)
    for figure in figures:
        drawing = svg(figure, arguments.width).encode()
        write_bytes(out / f"{figure.id}.{arguments.format}", converted(drawing))
        if figure.tables:
            write_bytes(out / f"{figure.id}.csv", numbers(figure).encode())
    options.say(arguments)(f"{len(figures)} figures: {out}")
    return options.OK if figures else options.NOTHING


def _converter(kind: str):
    """SVG → bytes of this format; raises InputError where what makes it is not installed."""
    from analyses.errors import InputError

    if kind == "svg":
        return lambda drawing: drawing
    try:
        import cairosvg
    except (ImportError, OSError) as error:  # OSError: the package is there, and the cairo library is not
        raise InputError(MISSING) from error
    if kind == "pdf":
        return lambda drawing: cairosvg.svg2pdf(bytestring=drawing)
    return lambda drawing: cairosvg.svg2png(bytestring=drawing, scale=300 / 96)  # 300 dots an inch
