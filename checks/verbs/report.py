"""`fathom report`: gates, pages and an index from records, without a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analyses.errors import InputError
from checks.verbs import options
from checks.verbs.options import ERROR, GATE_FAILED, NOTHING, OK

HELP = "gates, pages and an index over these records alone; no model needed"


def arguments(parser: argparse.ArgumentParser) -> None:
    folder = "a model's folder of records, or the folder over all models"
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help=folder)
    options.common(parser)


def run(arguments: argparse.Namespace) -> int:
    folders = []
    for folder in arguments.folders:
        folders += [folder] if (folder / "manifest.json").exists() else models_under(folder)
    return report_all(folders, folders, arguments)


def models_under(out: Path) -> list[Path]:
    """The models' folders in a folder over all models; raises InputError if there is none."""
    found = sorted(path.parent for path in out.glob("*/manifest.json"))
    if not found:
        raise InputError(f"{out}: no records here or one level below; run `fathom measure` first")
    return found


def report_all(folders: Sequence[Path], indexed: Sequence[Path], arguments: argparse.Namespace) -> int:
    """Judge and render these folders and an index; the exit code."""
    from analyses.records import write_bytes, write_json
    from checks import words
    from checks.cases import cases
    from checks.judge import exit_code, judge, read_controls, read_records
    from checks.junit import junit
    from checks.markdown import summary
    from checks.report import render_index, render_model

    say = options.say(arguments)
    codes = []
    for folder in folders:
        found = read_records(folder)
        judged = judge(found, read_controls(folder, found))
        write_json(folder / "gates.json", judged)
        write_bytes(folder / "report.html", render_model(folder).encode(errors="replace"))
        found, verdicts = cases(judged), [claim["verdict"] for claim in judged["claims"]]
        answer = f"{words.answer(verdicts)} {words.integrity(judged['integrity'])}"
        write_bytes(folder / "junit.xml", junit(judged["model"], found))
        write_bytes(folder / "summary.md", summary("Fathom:", judged["model"], found, answer).encode())
        codes.append(exit_code(judged, strict=arguments.strict))
        for line in _verdict_lines(judged):
            say(line)
        say(f"page: {folder / 'report.html'}")
    index = folders[0].parent / "index.html"
    write_bytes(index, render_index(indexed, index.parent).encode(errors="replace"))
    say(f"index: {index}")
    # An error outranks a failed gate, which outranks a model with nothing to evaluate.
    return next((code for code in (ERROR, GATE_FAILED, NOTHING) if code in codes), OK)


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
    counts = judged["counts"]["claims"]
    return [*lines, "  " + ", ".join(f"{counts[v]} {v}" for v in judged["verdicts"] if counts.get(v))]
