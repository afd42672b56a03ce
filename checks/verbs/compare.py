"""`fathom compare`: two runs beside each other, on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from analyses.errors import received
from checks import options
from checks.options import GATE_FAILED, OK

HELP = "two runs beside each other: new failures, fixes, drifts, and what cannot be compared"


def arguments(parser: argparse.ArgumentParser) -> None:
    side = "a model's folder of records, or its report.html"
    parser.add_argument("a", type=Path, metavar="A", help=side)
    parser.add_argument("b", type=Path, metavar="B", help=side)
    page = Path("build/compare.html")
    parser.add_argument("--out", type=Path, default=page, metavar="FILE", help="page to write (default: %(default)s)")
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    from analyses.records import write_bytes
    from checks.report.comparison import answer, broken, render_comparison
    from checks.verify.compare import FAILURE, UNLIKE, compare, read_side

    a, b = read_side(arguments.a), read_side(arguments.b)
    with received(f"{arguments.a} and {arguments.b}"):
        pairs = compare(a, b)
        page = render_comparison(a, b, pairs)
    say = options.say(arguments)
    for pair in pairs:
        if pair.group == UNLIKE or pair.a != pair.b or any(number.drifts for number in pair.numbers):
            why = f" ({'; '.join(pair.reasons)})" if pair.reasons else ""
            say(f"  {pair.group:<14}  {pair.id:<5} {pair.a or 'not asked'} → {pair.b or 'not asked'}{why}")
    say(answer(pairs))
    write_bytes(arguments.out, page.encode(errors="replace"))
    say(f"page: {arguments.out}")
    failed = broken(b) or (arguments.strict and any(pair.group == FAILURE for pair in pairs))
    return GATE_FAILED if failed else OK
