"""The request of a sweep: models with their options, from the command line and from a sweep file.

    models = ["EleutherAI/pythia-160m@step{0,1,2,4}", "path/to/steps/step*"]
    only = ["null_residual", "head_grams"]      # any option of `fathom measure`, as it is spelled there
    dtype = "bfloat16"

    [[model]]                                   # and, for one model, otherwise
    source = "path/to/big"
    dtype = "auto"

What a file says of one model stands over what it says of all, and that over the command line.
"""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from analyses.errors import InputError
from checks import options

BY_HAND = ("trust_remote_code",)  # options that only who starts the sweep may set
OWN = ("models", "model", "source")  # keys of a sweep file that are no option


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One pattern, and the options with which its checkpoints are to be measured."""

    pattern: str
    options: Mapping[str, Any]  # option → value, as the command line's parser gives it


def wanted(models: Sequence[str], given: argparse.Namespace) -> list[Wanted]:
    """Patterns and options, those of sweep files read in.

    Raises InputError for a sweep file that is none.
    """
    found: list[Wanted] = []
    base = {key: value for key, value in vars(given).items() if key in _defaults()}
    for model in models:
        if model.endswith(".toml"):
            found += _from_file(Path(model), base)
        else:
            found.append(Wanted(pattern=model, options=base))
    return found


def _from_file(path: Path, base: Mapping[str, Any]) -> list[Wanted]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such sweep file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({error})") from error
    every, tables = tree.get("models", []), tree.get("model", [])
    if not isinstance(every, list) or not all(isinstance(model, str) for model in every):
        raise InputError(f"{path}: models must be a list of texts, got {every!r}")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: expected [[model]] tables")
    if not every and not tables:
        raise InputError(f'{path}: names no model; expected models = ["…"] or [[model]] with a source')
    common = {**base, **_options(tree, path)}
    found = [Wanted(pattern=pattern, options=common) for pattern in every]
    for table in tables:
        if not isinstance(source := table.get("source"), str):
            raise InputError(f"{path}: a [[model]] has no source, or one that is not a text")
        found.append(Wanted(pattern=source, options={**common, **_options(table, path)}))
    return found


class _Parser(argparse.ArgumentParser):
    """The command line's own parser, reading a file."""

    def __init__(self, path: Path = Path("sweep.toml")):
        super().__init__(add_help=False, allow_abbrev=False)
        self.path = path
        options.measuring(self)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.path}: {message}")


def _defaults() -> dict[str, Any]:
    """Every option that measuring has → its default."""
    return {key: value for key, value in vars(_Parser().parse_args([])).items() if key != "out"}


def _options(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The options that a table of a sweep file sets, as the command line's parser reads them."""
    words: list[str] = []
    for key, value in table.items():
        if key in OWN:
            continue
        option = "--" + key.replace("_", "-")
        if key.replace("-", "_") in BY_HAND:
            raise InputError(f"{path}: {key}: a file does not let code run; give --{key.replace('_', '-')} by hand")
        if key.replace("-", "_") not in _defaults():
            raise InputError(f"{path}: {key} is no option of a model (there are: {', '.join(_defaults())})")
        if isinstance(value, bool):
            words += [option] if value else []
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f"{option}={text}")
    parsed = vars(_Parser(path).parse_args(words))
    return {key.replace("-", "_"): parsed[key.replace("-", "_")] for key in table if key not in OWN}
