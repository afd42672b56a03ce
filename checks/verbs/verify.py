"""`fathom verify`: measure a recorded result again and compare number by number."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from analyses.errors import InputError, printable
from checks import options

HELP = "measure a recorded result again and compare number by number; 0 same, 1 moved, 3 not comparable"


def arguments(parser: argparse.ArgumentParser) -> None:
    what = "a model's folder of records, a received report.html, or `recorded` for what ships with the project"
    parser.add_argument("result", type=Path, metavar="RESULT", help=what)
    parser.add_argument("--model", help="the model, where the record does not say where it is")
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare with these records; measure nothing")
    parser.add_argument("--out", type=Path, help="keep the new records here, and go on from those that are there")
    parser.add_argument("--only", type=options.analyses, metavar="NAME,…", help="these analyses only")
    parser.add_argument("--subset", action="store_true", help="the quickest analyses only; says which")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="the recorded text, if it is your own")
    for name in ("json", "markdown", "junit"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write the outcome as {name}")
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    from analyses.records import write_bytes, write_json
    from checks.reference import RECORDED
    from checks.report.junit import junit
    from checks.report.markdown import summary
    from checks.report.verification import cases, lines
    from checks.report.whole import held
    from checks.verify.remeasure import movements, remeasure
    from checks.verify.results import model_of, received, subset
    from checks.verify.verify import drifting, plain, verify

    shipped = arguments.result == Path("recorded") and not arguments.result.exists()
    with ExitStack() as stack:
        recorded = stack.enter_context(received(RECORDED if shipped else arguments.result))
        names = tuple(recorded.found)
        if arguments.only:
            names = arguments.only
        elif arguments.subset:
            names = subset(recorded.manifest, names)
        if arguments.against:
            found = stack.enter_context(received(arguments.against))
            if arguments.model or arguments.out:
                raise InputError("--against measures nothing; it goes without --model and --out")
        else:
            out = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            model = arguments.model or model_of(recorded.manifest)
            say = options.say(arguments)
            say(f"measuring {', '.join(names)} again")
            found = remeasure(recorded, model, out, names=names, calibration=arguments.calibration, say=say)
        verification = verify(recorded, found, names=names)
        if not arguments.against and (moved := drifting(verification)):
            say(f"measuring how far {', '.join(moved)} move on this model")
            tolerances = movements(recorded, model, moved, calibration=arguments.calibration, say=say)
            verification = verify(recorded, found, names=names, moved=(tolerances,))
        verification = held(verification, recorded, found)
    for line in lines(verification):
        if not arguments.quiet:
            print(printable(line))
    title, found_cases = "Fathom verify:", cases(verification)
    if arguments.json:
        write_json(arguments.json, plain(verification))
    if arguments.markdown:
        lead = f"{verification.status[0].upper()}{verification.status[1:]}."
        write_bytes(arguments.markdown, summary(title, verification.model, found_cases, lead).encode())
    if arguments.junit:
        write_bytes(arguments.junit, junit(f"verify {verification.model}", found_cases))
    return verification.exit_code
