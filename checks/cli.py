"""The command line: parse, measure, judge, render, exit code. Thin on purpose.

Heavy imports stay inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.errors import InputError

if TYPE_CHECKING:
    from analyses.measure import Measured

REFERENCE = Path(__file__).parent / "reference"
OK, GATE_FAILED, ERROR, NOTHING = 0, 1, 2, 3
DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return arguments.verb(arguments)
    except InputError as error:
        if arguments.debug:
            raise
        print(f"fathom: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        print("fathom: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fathom", description="Test and report claims about the geometry of transformers.", allow_abbrev=False
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    run = verbs.add_parser("run", help="measure models, judge them, render their pages and one index")
    run.add_argument("models", nargs="+", metavar="MODEL", help="folder, hub id, id@revision, or `reference`")
    run.add_argument("--exact-index", action="store_true", help="the index lists these models alone, not all in --out")
    run.set_defaults(verb=_run)
    _measuring(run)
    _common(run)

    measure = verbs.add_parser("measure", help="records only")
    measure.add_argument("models", nargs="+", metavar="MODEL", help="folder, hub id, id@revision, or `reference`")
    measure.set_defaults(verb=_measure)
    _measuring(measure)
    _common(measure)

    report = verbs.add_parser("report", help="gates, pages and an index over these records alone; no model needed")
    folder = "a model's folder of records, or the folder over all models"
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR", help=folder)
    report.set_defaults(verb=_report)
    _common(report)
    return parser


def _measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder over all models (default: build)")
    parser.add_argument("--only", type=_analyses, metavar="NAME,…", help="these analyses only")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the forward pass; auto: as stored")
    parser.add_argument("--attention", choices=("eager", "sdpa"), default="eager", help="attention implementation")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="UTF-8 text instead of the one that ships")
    parser.add_argument("--seed", type=int, default=0)
    controls = ("all", "class", "coordinates", "noise", "none")
    parser.add_argument("--controls", choices=controls, help="default: all for the reference model, else none")
    parser.add_argument("--trust-remote-code", action="store_true", help="let the model's own code run")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a claim fails")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def _analyses(text: str) -> tuple[str, ...]:
    from analyses.records import ANALYSES

    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in ANALYSES]:
        raise argparse.ArgumentTypeError(f"no analysis '{unknown[0]}' (there are: {', '.join(ANALYSES)})")
    return names


def _say(arguments: argparse.Namespace) -> Callable[[str], None]:
    return (lambda line: None) if arguments.quiet else (lambda line: print(line, flush=True))


def _measure(arguments: argparse.Namespace) -> int:
    return _measure_all(arguments)[1]


def _measure_all(arguments: argparse.Namespace) -> tuple[list[Path], int]:
    """Measure every model; one that cannot be measured does not keep the others from it."""
    from analyses.measure import measure
    from analyses.records import ANALYSES, write_json
    from analyses.suite import Settings
    from checks.manifest import manifest

    settings = Settings(
        device=arguments.device,
        dtype=arguments.dtype,
        attention=arguments.attention,
        calibration=arguments.calibration,
        seed=arguments.seed,
        only=arguments.only or ANALYSES,
        trust_remote_code=arguments.trust_remote_code,
    )
    folders, code = [], OK
    for model in arguments.models:
        # The shipped model has a name, since a folder inside site-packages is nothing to type.
        shipped = model == REFERENCE.name and not Path(model).exists()
        source = str(REFERENCE) if shipped or Path(model).resolve() == REFERENCE.resolve() else model
        try:
            measured = measure(source, arguments.out, settings, say=_say(arguments), debug=arguments.debug)
        except InputError as error:
            if arguments.debug or len(arguments.models) == 1:
                raise
            print(f"fathom: {error}", file=sys.stderr)
            code = ERROR
            continue
        wanted = arguments.controls or ("all" if source == str(REFERENCE) else "none")
        if wanted != "none" and (failure := _control(measured, wanted, arguments)):
            print(f"fathom: {measured.checkpoint.name}: controls failed: {failure}", file=sys.stderr)
            code = ERROR
        write_json(measured.folder / "manifest.json", manifest(measured))
        folders.append(measured.folder)
        for name, failure in measured.failures.items():
            print(f"fathom: {measured.checkpoint.name}: {name} failed: {failure}", file=sys.stderr)
            code = ERROR
    return folders, code


def _control(measured: Measured, wanted: str, arguments: argparse.Namespace) -> str | None:
    """Run the controls of what was measured and keep what they found; why not, if they failed.

    The measurement stands without them, and the page then says that they were not run.
    """
    from analyses.records import read_json, write_json
    from checks.controls import PARTS, controls

    found = {name: read_json(measured.folder / f"{name}.json") for name in measured.settings.only}
    parts = PARTS if wanted == "all" else (wanted,)
    say = _say(arguments)
    try:
        evidence = controls(measured.checkpoint, measured.calibration, measured.settings, found, parts=parts, say=say)
    except Exception as error:  # the records are on disk and must reach their page
        if arguments.debug:
            raise
        return f"{type(error).__name__}: {error}".splitlines()[0]
    write_json(measured.folder / "controls.json", evidence)
    return None


def _run(arguments: argparse.Namespace) -> int:
    folders, code = _measure_all(arguments)
    if not folders:
        return code
    indexed = folders if arguments.exact_index else _models_under(arguments.out)
    return max(code, _report_all(folders, indexed, arguments))


def _report(arguments: argparse.Namespace) -> int:
    folders = []
    for folder in arguments.folders:
        folders += [folder] if (folder / "manifest.json").exists() else _models_under(folder)
    return _report_all(folders, folders, arguments)


def _models_under(out: Path) -> list[Path]:
    """The models' folders in a folder over all models; raises InputError if there is none."""
    found = sorted(path.parent for path in out.glob("*/manifest.json"))
    if not found:
        raise InputError(f"{out}: no records here or one level below; run `fathom measure` first")
    return found


def _report_all(folders: Sequence[Path], indexed: Sequence[Path], arguments: argparse.Namespace) -> int:
    from analyses.records import write_bytes, write_json
    from checks.judge import exit_code, judge, read_controls, read_records
    from checks.report import render_index, render_model

    say = _say(arguments)
    codes = []
    for folder in folders:
        judged = judge(read_records(folder), read_controls(folder))
        write_json(folder / "gates.json", judged)
        write_bytes(folder / "report.html", render_model(folder).encode())
        codes.append(exit_code(judged, strict=arguments.strict))
        for line in _verdict_lines(judged):
            say(line)
        say(f"page: {folder / 'report.html'}")
    index = folders[0].parent / "index.html"
    write_bytes(index, render_index(indexed, index.parent).encode())
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


if __name__ == "__main__":
    sys.exit(main())
