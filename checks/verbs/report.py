"""`fathom report`: gates, pages and an index from records, without a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analyses.errors import InputError, received
from checks import options
from checks.claims.sets import LATEST, VERSIONS
from checks.options import ERROR, GATE_FAILED, NOTHING, OK

HELP = "gates, pages and an index over these records alone; no model needed"


def arguments(parser: argparse.ArgumentParser) -> None:
    folder = "a model's folder of records, or the folder over all models"
    sets = "judge by an earlier version of the built-in claims (default: the latest)"
    parser.add_argument("--claim-set", type=int, choices=VERSIONS, default=LATEST, help=sets)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help=folder)
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    named, swept = [], []
    for folder in arguments.folders:
        if (folder / "manifest.json").exists():
            named.append(folder)
        else:
            swept += models_under(folder)
    return report_all([*named, *swept], [*named, *swept], arguments, named=named)


def models_under(out: Path) -> list[Path]:
    """The models' folders in a folder over all models; raises InputError if there is none."""
    found = sorted(path.parent for path in out.glob("*/manifest.json"))
    if not found:
        raise InputError(f"{out}: no records here or one level below; run `fathom measure` first")
    return found


def report_all(
    folders: Sequence[Path], indexed: Sequence[Path], arguments: argparse.Namespace, named: Sequence[Path] | None = None
) -> int:
    """Judge and render these folders and an index; the exit code.

    Parameters
    ----------
    named : the folders that were asked for by name; all of them unless given. One whose records cannot be
        read is an error. One that was only found below a folder is told and stands so in the index, and
        is an error where no other could be read.
    """
    from analyses.records import write_bytes
    from checks.report.index import Indexed, is_ours, render_index

    say = options.say(arguments)
    unread: dict[Path, str] = {}
    codes = []
    for folder in folders:
        try:
            codes.append(_report(folder, arguments))
        except Exception as error:  # the others still have their pages
            if getattr(arguments, "debug", False):
                raise
            unread[folder] = options.told(folder, error)
            print(f"fathom: {unread[folder]}", file=sys.stderr)
            if named is None or folder in named:
                codes.append(ERROR)
    if len(unread) == len(folders):
        return ERROR
    index = folders[0].parent / "index.html"
    models = [Indexed(folder=folder, unreadable=unread.get(folder, "")) for folder in indexed]
    if is_ours(index):
        write_bytes(index, render_index(models, index.parent).encode(errors="replace"))
        say(f"index: {index}")
    else:
        say(f"index: none written, {index} is another page; move it, or measure into another folder")
    # An error outranks a failed gate, which outranks a model with nothing to evaluate.
    return next((code for code in (ERROR, GATE_FAILED, NOTHING) if code in codes), OK)


def _report(folder: Path, arguments: argparse.Namespace) -> int:
    """Judge and render one model; its exit code. Raises InputError where its records cannot be read."""
    from analyses.records import write_bytes, write_json
    from checks.claims.judge import exit_code, judge, read_controls, read_records
    from checks.own.gates import gates, with_own
    from checks.own.registered import registered, stated
    from checks.report.page import render_model
    from checks.report.side_files import side_files

    say = options.say(arguments)
    with received(str(folder)):
        found = read_records(folder)
        own = registered(folder)
        claims = own[0].claims if own else ()
        gates_of_own = gates(claims, stated(own[1])) if own else []
        judged = judge(
            with_own(found, claims), read_controls(folder, found), own=gates_of_own, stated=own[1] if own else None,
            claim_set=getattr(arguments, "claim_set", LATEST),
        )
        write_json(folder / "gates.json", judged)
        write_bytes(folder / "report.html", render_model(folder).encode(errors="replace"))
        beside = side_files(judged)
    for name, data in beside.items():
        write_bytes(folder / name, data)
    for line in _verdict_lines(judged):
        say(line)
    say(f"page: {folder / 'report.html'}")
    return exit_code(judged, strict=arguments.strict)


def _verdict_lines(judged: dict) -> list[str]:
    integrity = judged["counts"]["integrity"]
    held, asked = integrity.get("pass", 0), sum(integrity.values()) - integrity.get("skip", 0)
    lines = [f"\n{judged['model']}: {held} of {asked} integrity gates pass"]
    broken = [o for o in judged["integrity"] if o["status"] not in ("pass", "skip")]
    lines += [f"  BROKEN {o['id']}: {o['claim']}" for o in broken]
    width = max(len(verdict) for verdict in judged["verdicts"])
    for claim in judged["claims"]:
        reason = f" ({claim['verdict_reason']})" if claim["verdict_reason"] else ""
        lines.append(f"  {claim['verdict']:<{width}}  {claim['id']:<5} {claim['claim']}{reason}")
    for claim in judged["stored"]:
        lines.append(f"  {'as stored: ' + claim['meets']:<{width}}  {claim['id']:<10} {claim['claim']}")
    counts = judged["counts"]["claims"]
    return [*lines, "  " + ", ".join(f"{counts[v]} {v}" for v in judged["verdicts"] if counts.get(v))]
