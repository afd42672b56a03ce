"""`fathom plan`: what a measurement would read, cost and leave out, from headers alone."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from checks import options

if TYPE_CHECKING:
    from analyses.run.hours import Machine
    from analyses.run.plan import Plan

HELP = "what measuring a model would read, cost and leave out; reads headers, and downloads no weights"
UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def arguments(parser: argparse.ArgumentParser) -> None:
    options.models(parser)
    options.chosen(parser)
    options.text(parser)
    spectra = "as of fathom run: auto (default), exact, sampled or none"
    parser.add_argument("--spectra", choices=("auto", "exact", "sampled", "none"), default="auto", help=spectra)
    rates = "bench.json or gpu-check.json of a machine, to plan for it as well"
    parser.add_argument("--rates", type=Path, metavar="FILE", help=rates)
    parser.add_argument("--json", action="store_true", help="the plans as JSON, one a line")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def run(arguments: argparse.Namespace) -> int:
    from analyses.forward.inputs import Settings
    from analyses.records import plain
    from analyses.run import hours
    from analyses.run.plan import plan
    from checks.claims.decidable import undecidable
    from checks.reference import read_in_its_language, source_of

    settings = Settings(
        stack=arguments.stack,
        layers=arguments.layers,
        families=arguments.families,
        calibration=arguments.calibration,
        tokens=arguments.tokens,
        spectra=arguments.spectra,
    )
    machines = [*hours.PLANNED, *([read_rates(arguments.rates)] if arguments.rates else [])]
    code = options.OK
    for i, model in enumerate(arguments.models):
        try:
            source = source_of(model)
            found = plan(source, read_in_its_language(settings, source))
        except Exception as error:  # the others still have their plans
            if arguments.debug or len(arguments.models) == 1:
                raise
            print(f"fathom: {options.told(model, error)}", file=sys.stderr)
            code = options.ERROR
            continue
        if arguments.json:
            times = {machine.name: hours.times(found, machine) for machine in machines}
            further = {"undecidable": undecidable(found), "seconds": times}
            print(json.dumps(plain(found) | further, sort_keys=True))
        else:
            told = (*lines(found), *durations(found, machines), *claims(undecidable(found)))
            print("\n".join([*([""] if i else []), *told]))
    return code


def lines(plan: Plan) -> Iterator[str]:
    """The plan for a reader."""
    where = f", revision {plan.revision}" if plan.revision else ""
    yield f"{plan.model}{where}"
    yield f"  {plan.architecture}, recognised {plan.recognised}"
    experts = f", {plan.experts} experts a layer" if plan.experts else ""
    yield (
        f"  {plan.layers} layers, hidden {plan.hidden}, {plan.heads} heads over {plan.kv_heads} key/value heads of "
        f"{plan.head_dim}, feed-forward {plan.feed_forward}{experts}"
    )
    types = ", ".join(f"{dtype} {_number(count)}" for dtype, count in plan.dtypes.items())
    files = f"{plan.weight_files} file{'s' * (plan.weight_files > 1)}"
    yield f"  {_number(plan.parameters)} parameters ({types})"
    yield f"  {_number(plan.weight_bytes)}B in {files}, " + (
        "to be fetched first, then read once" if plan.remote else "read once"
    ) + " to check and hash them"
    yield f"  present: {', '.join(plan.present)}"
    yield from (f"  absent:  {family}: {why}" for family, why in plan.absent.items())
    yield from (f"  note:    {note}" for note in plan.notes)
    yield ""
    yield f"  {'':<16} {'reads':>9} {'operations':>11} {'peak memory':>12}"
    how: list[str] = []
    for name, cost in plan.costs.items():
        label = "forward pass" if name == "forward" else name
        if plan.skipped.get(name) or (name == "forward" and "delta_svd" in plan.skipped):
            continue
        work, reads, peak = _number(cost.operations), _number(cost.reads), _number(cost.peak)
        yield f"  {label:<16} {reads + 'B':>9} {work:>11} {peak + 'B':>12}"
        how += textwrap.wrap(f"{label}: {cost.how}", 108, initial_indent="    ", subsequent_indent="      ")
    rest = [name for name in ("schedule_fit", "head_geometry") if name not in plan.skipped]
    yield f"  {' and '.join(rest)}: seconds, from the records of the others"
    yield f"  (for the text {plan.text}, about {plan.tokens} tokens, float32; estimates, to a factor of 3:"
    yield from how
    yield "    with L layers, hidden D, H heads and K key/value heads of d, width F)"
    if plan.skipped:
        yield ""
        yield from (f"  skipped: {name}: {why}" for name, why in plan.skipped.items())


def durations(plan: Plan, machines: Sequence[Machine]) -> Iterator[str]:
    """How long the analyses of weights take on some machines, start and checking included."""
    from analyses.run import hours

    yield ""
    for machine in machines:
        found = hours.times(plan, machine)
        parts = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in found.items())
        yield f"  on {machine.name}: {parts}"
    yield from textwrap.wrap(
        f"(start and checking of files included; to 30 %, by the rates of two measured cores; {hours.UNMEASURED})",
        116, initial_indent="  ", subsequent_indent="    ",
    )  # fmt: skip


def read_rates(path: Path) -> Machine:
    """The machine whose bench a file is; raises InputError for one that is none."""
    from analyses.errors import InputError
    from analyses.records import read_json
    from analyses.run import hours

    tree = read_json(path)
    try:
        rates = {name: float(rate) for name, rate in tree["rates"].items()}
        return hours.measured(rates, name=str(tree["machine"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: no rates of a machine; give the bench.json that `make bench` writes") from None


def _duration(seconds: float) -> str:
    """Two digits: 41 s, 3.2 min, 5.1 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"


def claims(undecidable: Mapping[str, str]) -> Iterator[str]:
    """The claims that cannot be decided, those with one reason on one line."""
    if undecidable:
        yield ""
        yield "  cannot be decided on this model and text:"
    for why in dict.fromkeys(undecidable.values()):
        yield f"    {', '.join(claim for claim, reason in undecidable.items() if reason == why)}: {why}"


def _number(value: float) -> str:
    """Three digits and a prefix: 1.23 G."""
    for size, prefix in UNITS:
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "
