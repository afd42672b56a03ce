"""`fathom accept`: make a result the recorded one, with a reason."""

from __future__ import annotations

import argparse
from pathlib import Path

from checks import options

HELP = "make a result the one that `verify recorded` expects; logged with its reason"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a model's folder, measured, judged and whole")
    parser.add_argument("--reason", required=True, help="why the recorded result changes")
    parser.add_argument("--model", help="the model, where the record does not say where it is")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="the recorded text, if it is your own")
    parser.add_argument("--recorded", type=Path, metavar="DIR", help="default: checks/reference/recorded")
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    from checks.reference import RECORDED
    from checks.verify.accept import accept
    from checks.verify.remeasure import settings_of
    from checks.verify.results import model_of, received
    from checks.verify.tolerances import measure_tolerances

    with received(arguments.folder) as result:
        model = arguments.model or model_of(result.manifest)
        names = tuple(result.found)
        settings = settings_of(result.manifest, names, arguments.calibration)
    say = options.say(arguments)
    # Beside the recorded precision the one in which most models are run.
    dtypes = tuple(dict.fromkeys((settings.dtype, "bfloat16")))
    tolerances = measure_tolerances(model, settings, dtypes=dtypes, say=say)
    recorded = arguments.recorded or RECORDED
    for line in accept(arguments.folder, recorded, reason=arguments.reason, tolerances=tolerances):
        say(line)
    say(f"recorded: {recorded}")
    return options.OK
