"""`fathom bench`: how fast and how lean the analyses are, against what this machine can do."""

from __future__ import annotations

import argparse
from pathlib import Path

from checks import options

HELP = "measure time and memory of each stage against what this machine can do; random weights, no model needed"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=("tiny", "0.6b", "4b"), default="0.6b", help="dimensions (default: 0.6b)")
    parser.add_argument("--out", type=Path, default=Path("build"), help="for bench.json and bench.md (default: build)")
    on = "also every stage on this device, beside its own ceilings"
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help=on)
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    from checks.bench.runner import bench

    print(bench(arguments.size, arguments.out, device=arguments.device, say=options.say(arguments)))
    return options.OK
