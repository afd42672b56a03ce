"""`fathom sweep`: many checkpoints, on this machine, on Slurm or on Dask."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.errors import InputError, printable
from checks import options
from checks.machine import threads
from checks.options import ERROR, NOTHING, OK
from checks.sweep.engine import ENGINES

if TYPE_CHECKING:
    from checks.sweep.plan import Plan

HELP = "measure many checkpoints, on this machine, on Slurm or on Dask; goes on where it stopped"
INCOMPLETE = NOTHING
OF_ENGINES = {
    "partition": "slurm", "memory": "slurm", "minutes": "slurm", "sbatch": "slurm", "scheduler": "dask",
}  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    pattern = "folder, hub id, id@revision, a pattern such as id@step{0,1,2} or steps/step*, or a sweep file FILE.toml"
    parser.add_argument("models", nargs="*", metavar="MODEL", help=pattern)
    parser.add_argument("--status", action="store_true", help="say how far the sweep into --out is, and exit")
    split = "measure the layers and the heads of a large checkpoint in shards, each by a worker of its own"
    parser.add_argument("--split", action="store_true", help=split)
    parser.add_argument("--retry", action="store_true", help="give what was given up new attempts")
    parser.add_argument("--engine", default="local", metavar="|".join(ENGINES), help="who runs the work")
    parser.add_argument("--workers", type=_count, default=2, metavar="N", help="checkpoints at a time (default: 2)")
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="of each worker (default: 1)")
    parser.add_argument(
        "--stage", type=Path, metavar="DIR", help="copy checkpoints to this disk of the worker's machine"
    )
    parser.add_argument(
        "--prefetch", action="store_true", help="fetch from the hub here, for workers without a network"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster that is there (default: one of our own)"
    )
    seconds = "for how long a record may appear late before it counts as missing (default: by engine)"
    parser.add_argument("--patience", type=float, metavar="SECONDS", help=seconds)
    parser.add_argument("--partition", metavar="NAME", help="of Slurm")
    parser.add_argument("--memory", type=float, metavar="GB", help="of a Slurm job (default: 16)")
    parser.add_argument("--minutes", type=_count, metavar="N", help="time limit of a Slurm job (default: 240)")
    parser.add_argument("--sbatch", action="append", default=[], metavar="KEY=VALUE", help="further option of sbatch")
    options.measuring(parser)
    options.common(parser)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    if arguments.status:
        return _status(arguments)
    if arguments.engine not in ENGINES:
        raise InputError(f"--engine {arguments.engine}: there is no such engine (there are: {', '.join(ENGINES)})")
    for option, engine in OF_ENGINES.items():
        if getattr(arguments, option) and arguments.engine != engine:
            raise InputError(f"--{option}: an option of --engine {engine}, and this is --engine {arguments.engine}")
    if not arguments.models:
        raise InputError("no model; give folders, hub ids, patterns or a sweep file (or --status)")
    return _sweep(arguments)


def _sweep(arguments: argparse.Namespace) -> int:
    from analyses.records import CannotWrite
    from checks.sweep import failures, lease, plan, progress
    from checks.sweep.driver import Driver
    from checks.sweep.engine import Setup
    from checks.sweep.engines import start
    from checks.sweep.prefetch import prefetch

    say = options.say(arguments)
    threads.limit(arguments.threads)
    made = _plan(arguments)
    held = lease.take(made.state / "driver.json", {"engine": arguments.engine})
    if held is None:
        found = lease.read(made.state / "driver.json")
        other = found.facts["process"] if found else {"pid": "?", "host": "?"}
        raise InputError(
            f"{arguments.out}: a driver is at work here (process {other['pid']} on {other['host']}); "
            f"watch it with fathom sweep --status --out {arguments.out}"
        )
    with held:
        plan.write(made)
        for reason in made.refused.values():
            print(f"fathom: {reason}", file=sys.stderr)
        if arguments.retry:
            failures.forget(made.state / "failures", [t.id for e in made.elements for t in e.tasks.values()])
        if arguments.prefetch:
            prefetch(made.elements, say)
        engine = start(
            arguments.engine,
            Setup(
                out=arguments.out,
                workers=arguments.workers,
                threads=arguments.threads,
                stage=arguments.stage.resolve() if arguments.stage else None,
                scheduler=arguments.scheduler,
                memory=arguments.memory,
                minutes=arguments.minutes,
                partition=arguments.partition,
                extra=tuple(arguments.sbatch),
            ),
        )
        if arguments.patience is not None:
            engine.patience = arguments.patience
        driver = Driver(made, engine, say)

        def report() -> None:
            for line in progress.lines(progress.standing(made, driver.done()), held.facts):
                say(line)

        try:
            driver.look()
            held.tell(started=time.time(), done=progress.standing(made, driver.done()).done)
            driver.run(report)
        except KeyboardInterrupt:
            engine.close()
            driver.stopped()
            print(f"fathom: interrupted; go on with {made.command}", file=sys.stderr)
            return 130
        finally:
            engine.close()
            with contextlib.suppress(CannotWrite):  # a full disk; that this process is gone says the same
                held.end()
    if arguments.controls not in (None, "none"):
        _controls(made, arguments)
    return _finish(made, driver.full, arguments)


def _controls(made: Plan, arguments: argparse.Namespace) -> None:
    """The controls of every checkpoint whose records are all there, one after the other; what failed is said."""
    import dataclasses

    import torch

    from analyses.run.measure import measure_checkpoint
    from analyses.weights.checkpoint import open_checkpoint
    from checks.sweep import done, plan
    from checks.verbs.measure import control

    say = options.say(arguments)
    for element in made.checkpoints:
        if done.missing(made.out, element):
            say(f"{element.source.name}: no controls, since it is not measured whole")
            continue
        torch.set_num_threads(element.threads)
        settings = plan.settings_of(element)
        opened = open_checkpoint(element.source.exact, stack=settings.stack)
        opened = dataclasses.replace(opened, name=element.source.name, revision=element.source.commit)
        measured = measure_checkpoint(opened, element.folder(made.out), settings)
        if failure := control(measured, arguments.controls, arguments):
            print(f"fathom: {element.source.name}: controls failed: {failure}", file=sys.stderr)


def _plan(arguments: argparse.Namespace) -> Plan:
    """Made in a process of its own, so that the driver stays small and the workers' imports are already paid."""
    from checks.sweep.engines.local import apart
    from checks.sweep.planning import make
    from checks.sweep.request import wanted

    asked = wanted(arguments.models, arguments)
    local = arguments.engine == "local" or arguments.engine == "dask" and arguments.scheduler is None
    options = dict(threads=arguments.threads, local=local, command=_command(), split=arguments.split)
    return apart(make, asked, arguments.out, **options)


def _command() -> str:
    """What was typed, without what is said once only."""
    return shlex.join(["fathom", *(word for word in sys.argv[1:] if word != "--retry")])


def _status(arguments: argparse.Namespace) -> int:
    from checks.sweep import lease, plan, progress

    found = plan.read(arguments.out)
    driver = lease.read(found.state / "driver.json")
    now = progress.standing(found)
    for line in [*progress.lines(now, driver.facts if driver and driver.lives else None), *progress.why_not(now)]:
        print(printable(line))
    return OK if now.complete else INCOMPLETE


def _finish(made: Plan, full: str | None, arguments: argparse.Namespace) -> int:
    """Pages and index over what is there, the table, and how to get the rest."""
    from analyses.records import write_bytes
    from checks.report.index import Indexed, render_index
    from checks.sweep import progress, steps
    from checks.verbs.report import report_all

    say: Callable[[str], None] = options.say(arguments)
    code = OK
    folders = [element.folder(made.out) for element in made.checkpoints]
    measured = [folder for folder in folders if (folder / "manifest.json").exists()]
    if measured:
        quiet = argparse.Namespace(quiet=True, strict=arguments.strict, debug=arguments.debug)
        code = report_all(measured, measured, quiet)
        facts, names = steps.facts(made), {element.source.slug: element.source.short for element in made.elements}
        index = [Indexed(folder=f, name=names[f.name], facts=facts[f.name]) for f in measured]
        write_bytes(made.out / "index.html", render_index(index, made.out).encode(errors="replace"))
        say(f"index: {made.out / 'index.html'}")
        if page := steps.write(made):
            say(f"claims over training: {page}")
    now = progress.standing(made)
    for line in [*progress.lines(now, None), *progress.why_not(now)]:
        say(line)
    if now.complete:
        return ERROR if made.refused else code
    retry = " --retry" if now.given_up and not full else ""
    if full:
        print(f"fathom: stopped, the disk is full: {full}", file=sys.stderr)
    print(f"fathom: {now.all - now.done} of {now.all} records are missing; {made.command}{retry}", file=sys.stderr)
    return INCOMPLETE
