"""Which of a model's two stacks of layers is read: the one asked for, or the only one that its files hold."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analyses.errors import InputError
from analyses.weights.architectures import ARCHITECTURES
from analyses.weights.beside import TOWERS
from analyses.weights.config import IMAGES
from analyses.weights.schema import STACKS, Architecture


def stack_of(
    config: Mapping[str, Any], headers: Iterable[str], folder: Path, asked: str | None, whole: Mapping[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """(the stack to be read, all that are there); ("", ()) for a model of one.

    Parameters
    ----------
    config : the entries of the stack that is asked for, or of the model's decoder. headers : names of its tensors.
    whole : the model's config as it is.

    Raises
    ------
    InputError in one line where there are two and none is asked for, and where the one asked for is not there.
    """
    known = _stacks(config) | _stacks(whole)
    seen = whole.get(IMAGES)
    if "text" in known and isinstance(seen, Mapping):
        known |= _stacks(seen)
    names = list(headers)
    held = tuple(stack for stack in STACKS if stack in known and _holds(known[stack], names, beside=len(known) > 1))
    if asked and asked not in held:
        has = " and ".join(STACKS[stack] for stack in held) if held else "one stack of layers"
        option = f"expected --stack {' or '.join(held)}" if held else "leave the option out"
        raise InputError(f"{folder}: --stack {asked}: the model has {has}; {option}")
    if not asked and len(held) > 1:
        has = " and ".join(STACKS[stack] for stack in held)
        options = " or ".join(f"--stack {stack}" for stack in held)
        raise InputError(f"{folder}: model_type '{whole.get('model_type')}' has {has}; say which to measure: {options}")
    return asked or (held[0] if held else ""), held


def _stacks(config: Mapping[str, Any]) -> dict[str, list[Architecture]]:
    found: dict[str, list[Architecture]] = {}
    for record in ARCHITECTURES:
        if record.stack and config.get("model_type") in record.model_types:
            found.setdefault(record.stack, []).append(record)
    return found


def _holds(records: Iterable[Architecture], names: Iterable[str], *, beside: bool) -> bool:
    """Whether a checkpoint has layers of one of these records, behind whatever prefix.

    Parameters
    ----------
    beside : whether another tower may stand there under the same names, so that the prefix tells which it is.
    """
    for record in records:
        end = "." + record.tensors["q_proj"].at(0)
        found = [name for name in names if ("." + name).endswith(end)]
        if beside and record.stack in ("text", "vision"):
            found = [name for name in found if bool(TOWERS.search(name)) == (record.stack == "vision")]
        if found:
            return True
    return False
