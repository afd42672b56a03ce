"""`fathom measure`: records only."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses.errors import InputError
from checks import options
from checks.reference import REFERENCE, read_in_its_language, source_of

if TYPE_CHECKING:
    from analyses.run.measure import Measured

HELP = "records only"


def arguments(parser: argparse.ArgumentParser) -> None:
    options.models(parser)
    options.measuring(parser)
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    return measure_all(arguments)[1]


def measure_all(arguments: argparse.Namespace) -> tuple[list[Path], int]:
    """Measure every model; one that cannot be measured does not keep the others from it."""
    import torch

    from analyses import registry
    from analyses.forward.inputs import Settings
    from analyses.records import read_json, write_json
    from analyses.run.measure import measure_checkpoint, slug
    from analyses.weights.checkpoint import open_checkpoint
    from checks.machine import threads
    from checks.machine.manifest import manifest
    from checks.machine.progress import bars
    from checks.own.registered import register, registered, with_claims
    from checks.own.statement import read as read_claims

    if arguments.quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when the hub's client is imported
    settings = Settings(
        device=arguments.device,
        dtype=arguments.dtype,
        attention=arguments.attention,
        calibration=arguments.calibration,
        tokens=arguments.tokens,
        seed=arguments.seed,
        spectra=arguments.spectra,
        stack=arguments.stack,
        matching=arguments.matching,
        layers=arguments.layers,
        families=arguments.families,
        only=arguments.only or registry.NAMES,
        trust_remote_code=arguments.trust_remote_code,
    )
    stated = read_claims(arguments.claims) if arguments.claims else None
    folders, code, usual = [], options.OK, torch.get_num_threads()
    sources = {model: source_of(model) for model in arguments.models}
    _require_distinct(sources, arguments.stack)
    with threads.threads(usual):
        for model, source in sources.items():
            undo = register(arguments.out / slug(source, arguments.stack), stated) if stated else None
            try:
                checkpoint = open_checkpoint(source, stack=arguments.stack)
                torch.set_num_threads(threads.for_stream(checkpoint.shape.hidden, usual))
                measured = measure_checkpoint(
                    checkpoint,
                    arguments.out / slug(source, arguments.stack),
                    read_in_its_language(settings, source),
                    say=options.say(arguments),
                    bar=bars(sys.stderr, quiet=arguments.quiet),
                    debug=arguments.debug,
                )
            except Exception as error:  # the others are still measured
                if undo:
                    undo()
                if arguments.debug or len(arguments.models) == 1:
                    raise
                print(f"fathom: {options.told(model, error)}", file=sys.stderr)
                code = options.ERROR
                continue
            wanted = arguments.controls or ("all" if source == str(REFERENCE) else "none")
            if failure := control(measured, wanted, arguments):
                print(f"fathom: {measured.checkpoint.name}: controls failed: {failure}", file=sys.stderr)
                code = options.ERROR
            path, own = measured.folder / "manifest.json", registered(measured.folder)
            if measured.renewed or not path.exists():
                write_json(path, manifest(measured) | with_claims(own))
            elif own and read_json(path).get("claims") != with_claims(own)["claims"]:
                write_json(path, read_json(path) | with_claims(own))
            folders.append(measured.folder)
            for name, failure in measured.failures.items():
                print(f"fathom: {measured.checkpoint.name}: {name} failed: {failure}", file=sys.stderr)
                code = options.ERROR
    return folders, code


def _require_distinct(sources: Mapping[str, str], stack: str | None) -> None:
    """Raise InputError where two of the models would write into one folder."""
    from analyses.run.measure import slug

    seen: dict[str, str] = {}
    for model, source in sources.items():
        other = seen.setdefault(slug(source, stack), model)
        if other != model and not _same(source, sources[other]):
            into = f"{slug(source, stack)}/, as {other} does"
            raise InputError(f"{model}: would write {into}; measure one of them into another --out")


def _same(one: str, other: str) -> bool:
    """Whether two sources are one folder by two paths, or one id."""
    if one == other or not (Path(one).exists() and Path(other).exists()):
        return one == other
    return Path(one).resolve() == Path(other).resolve()


def _known(path: Path) -> dict[str, Any]:
    """Controls that were run before; none where the file is not ours, which is then made again."""
    from checks.claims import written

    try:
        return written.read(path) if path.exists() else {}
    except InputError:
        return {}


def control(measured: Measured, wanted: str, arguments: argparse.Namespace) -> str | None:
    """Run the controls of what was measured, unless that was done, and keep what they found; why not, if they failed.

    The measurement stands without them, and the page then says that they were not run.
    """
    from analyses.progress import silent
    from analyses.records import CannotWrite, read_record, write_json
    from analyses.run import keys
    from checks.claims.judge import checksums
    from checks.controls.run import PARTS, controls
    from checks.machine.progress import bars
    from checks.own.registered import registered

    path, own = measured.folder / "controls.json", registered(measured.folder)
    parts = {"all": PARTS, "none": ()}.get(wanted, (wanted,))
    if not parts and not path.exists():
        return None
    found = {name: read_record(measured.folder / f"{name}.json", arrays=False) for name in measured.settings.only}
    rests_on = {"records": checksums(found), "code": keys.code("checks.controls.run")}
    rests_on |= {"own": own[0].sha256} if own else {}
    say, tick = options.say(arguments), bars(sys.stderr, quiet=arguments.quiet)(f"{measured.checkpoint.name}: controls")
    known = _known(path)
    if known and {name: known.get(name) for name in rests_on} == rests_on and set(parts) <= set(known.get("parts", ())):
        say(f"{measured.checkpoint.name}: controls are up to date")
        return None
    path.unlink(missing_ok=True)
    if not parts:
        return None
    try:
        evidence = controls(
            measured.checkpoint,
            measured.calibration,
            measured.settings,
            found,
            parts=parts,
            own=own[0].claims if own else (),
            say=say if tick is silent else lambda line: None,  # one bar over all stands in place of their lines
            tick=tick,
        )
        write_json(path, evidence | rests_on | {"parts": parts})
    except CannotWrite:
        raise
    except Exception as error:  # the records are on disk and must reach their page
        if arguments.debug:
            raise
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
