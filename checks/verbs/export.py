"""`fathom export`: a result in the forms that others read; nothing is uploaded."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.errors import InputError
from checks import options

if TYPE_CHECKING:
    from checks.verify.compare import Side

HELP = "a result as the published scripts wrote it, or as a hub, a database of evaluations or an archive takes it"
FORMS = ("as_published", "hub", "eee", "crate")
BENCHMARK = "fathom-geometry/claims"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("result", type=Path, metavar="RESULT", help="one model's folder of records, or its page")
    form = parser.add_argument_group("forms, one or several; nothing is uploaded")
    published = "what the published scripts wrote, key for key, by their formulas; needs --model"
    form.add_argument("--as-published", action="store_true", help=published)
    hub = "what a repository on the Hugging Face hub takes: .eval_results/fathom.yaml and a section of the model card"
    form.add_argument("--hub", action="store_true", help=hub)
    form.add_argument("--eee", action="store_true", help="a record of Every Eval Ever, schema 0.3.0 (arXiv:2606.14516)")
    crate = "ro-crate-metadata.json (RO-Crate 1.2) into the folder of records itself"
    form.add_argument("--crate", action="store_true", help=crate)
    parser.add_argument("--model", metavar="MODEL", help="--as-published: the checkpoint that was measured")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="--as-published: the text that was read")
    benchmark = f"--hub: the hub's dataset whose tasks are claims (default: {BENCHMARK}, which is not registered yet)"
    parser.add_argument("--benchmark", metavar="OWNER/NAME", default=BENCHMARK, help=benchmark)
    parser.add_argument("--organization", metavar="NAME", help="--eee: who measured (default: not stated)")
    out = "where the files go (default: RESULT/published, RESULT/hub, RESULT/every_eval_ever)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    from checks.export.answers import require
    from checks.verify.compare import read_side

    asked = [form for form in FORMS if getattr(arguments, form)]
    if not asked:
        raise InputError("export: expected one of --as-published, --hub, --eee, --crate")
    if arguments.as_published and not arguments.model:
        raise InputError("export --as-published: needs --model, the checkpoint that was measured")
    if arguments.benchmark.count("/") != 1:
        raise InputError(f"--benchmark: '{arguments.benchmark}' is no dataset of the hub; expected OWNER/NAME")
    side = read_side(arguments.result)
    for form in asked:
        for path in _WRITE[form](side if form == "as_published" else require(side), arguments):
            options.say(arguments)(f"{form.replace('_', ' ')}: {path}")
    return options.OK


def _folder(arguments: argparse.Namespace, name: str) -> Path:
    given = arguments.result
    return arguments.out or (given if given.is_dir() else given.parent) / name


def _as_published(side: Side, arguments: argparse.Namespace) -> Iterator[Path]:
    from analyses.forward.calibration import load_calibration
    from analyses.weights.checkpoint import open_checkpoint
    from checks.export.as_published import write
    from checks.reference import source_of

    checkpoint = open_checkpoint(source_of(arguments.model), stack=side.manifest["settings"].get("stack"))
    text = load_calibration(arguments.calibration)
    yield from write(side.found, checkpoint, text, _folder(arguments, "published"))


def _hub(side: Side, arguments: argparse.Namespace) -> Iterator[Path]:
    from checks.export.hub import write

    yield from write(side, _folder(arguments, "hub"), benchmark=arguments.benchmark)
    if arguments.benchmark == BENCHMARK:
        options.say(arguments)(f"hub: it shows the results once a benchmark {BENCHMARK} is registered; see --benchmark")


def _eee(side: Side, arguments: argparse.Namespace) -> Iterator[Path]:
    from checks.export.every_eval_ever import write

    yield write(side, _folder(arguments, "every_eval_ever"), organization=arguments.organization)


def _crate(side: Side, arguments: argparse.Namespace) -> Iterator[Path]:
    from checks.export.crate import write

    yield write(side, arguments.result)


_WRITE = {"as_published": _as_published, "hub": _hub, "eee": _eee, "crate": _crate}
