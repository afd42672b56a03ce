"""Options that several verbs share, and the answers that they share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from analyses.errors import DEFECT, InputError, one_line, printable

OK, GATE_FAILED, ERROR, NOTHING = 0, 1, 2, 3
DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")


def models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder, hub id, id@revision, or `reference`")


def measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder over all models (default: build)")
    parser.add_argument("--only", type=analyses, metavar="NAME,…", help="these analyses only")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the forward pass; auto: as stored")
    parser.add_argument("--attention", choices=("eager", "sdpa"), default="eager", help="attention implementation")
    text(parser)
    chosen(parser)
    parser.add_argument("--seed", type=int, default=0)
    spectra = "of the residuals between layers; auto: exact below side 512, from there on sampled, with their error"
    parser.add_argument("--spectra", choices=("auto", "exact", "sampled", "none"), default="auto", help=spectra)
    parser.add_argument("--matching", choices=("auto", "none"), default="auto", help=argparse.SUPPRESS)
    unmatched = "match no neurons and heads; with --spectra none: the published statistics of null_residual alone"
    parser.add_argument("--no-matching", action="store_const", const="none", dest="matching", help=unmatched)
    controls = ("all", "class", "coordinates", "noise", "none")
    parser.add_argument("--controls", choices=controls, help="default: all for the reference model, else none")
    own = "claims of your own, stated in a .toml file before the measurement"
    parser.add_argument("--claims", type=Path, metavar="FILE", help=own)
    parser.add_argument("--trust-remote-code", action="store_true", help="let the model's own code run")


def chosen(parser: argparse.ArgumentParser) -> None:
    stacks = ("encoder", "decoder", "text", "vision")
    parser.add_argument("--stack", choices=stacks, help="which of a model's two stacks of layers, where it has two")
    parser.add_argument("--layers", type=layers, metavar="FIRST:END", help="these layers only; 0:12: the first 12")
    parser.add_argument("--families", type=families, metavar="NAME,…", help="these weights only: q_proj,k_proj")


def text(parser: argparse.ArgumentParser) -> None:
    own = "UTF-8 text instead of the one that ships, token ids (.ids.jsonl), or a folder of such files; may be repeated"
    parser.add_argument("--calibration", type=Path, action=_Paths, metavar="PATH", help=own)
    read = "of the text; auto: as many as the model's width asks for (default); 0: the short prompts"
    parser.add_argument("--tokens", type=tokens, metavar="auto|N", help=read)


class _Paths(argparse.Action):
    """Paths given one by one, as a tuple."""

    def __call__(self, parser, namespace, value, option=None):
        setattr(namespace, self.dest, (*(getattr(namespace, self.dest) or ()), value))


def tokens(text: str) -> int | None:
    """A number of tokens; None for `auto`."""
    if text == "auto":
        return None
    if not re.fullmatch(r"\d{1,7}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of tokens; expected auto, or a number such as 4096")
    return int(text)


def common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a claim fails")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def analyses(text: str) -> tuple[str, ...]:
    from analyses import registry

    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in registry.NAMES]:
        raise argparse.ArgumentTypeError(f"no analysis '{unknown[0]}' (there are: {', '.join(registry.NAMES)})")
    return names


def layers(text: str) -> range:
    """`0:12` as a range; the model decides which layers there are."""
    match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is no range; expected FIRST:END, as 0:12 for the first 12 layers")
    return range(int(match[1]), int(match[2]))


def families(text: str) -> tuple[str, ...]:
    from analyses.weights.architectures import FAMILIES

    names = text.split(",")
    if unknown := [name for name in names if name not in FAMILIES]:
        raise argparse.ArgumentTypeError(f"no family '{unknown[0]}' (there are: {', '.join(FAMILIES)})")
    return tuple(family for family in FAMILIES if family in names)


def told(what: object, error: Exception) -> str:
    """What went wrong with one of several models or folders, in one line."""
    return str(error) if isinstance(error, InputError) else f"{what}: {one_line(error)} ({DEFECT})"


def say(arguments: argparse.Namespace) -> Callable[[str], None]:
    """Where lines of progress go: the terminal, or nowhere under --quiet.

    Names and reasons may come from a received file, so control characters are written as escapes.
    """

    def shown(line: str) -> None:
        print("\n" * line.startswith("\n") + printable(line.removeprefix("\n")), flush=True)

    return (lambda line: None) if arguments.quiet else shown
