"""Records as the objects that the analyses made: the JSON read back through the annotations of its class.

The fields of a record's class say shapes and units.
"""

import dataclasses
import pkgutil
import re
import tokenize
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from analyses import registry
from analyses.errors import InputError

AXES = re.compile(r"\(([^()]+)\)|((?:\[\w+\])+)")  # (layer, head) or [layer][head], where a comment begins


def typed(name: str, record: Mapping[str, Any]) -> Any:
    """The record of one analysis; raises InputError for one that failed, was skipped, or lacks what its class asks."""
    for why in ("error", "skipped"):
        if why in record:
            raise InputError(f"{name}: {record[why]}")
    left_out = record.get("shortened", ())
    if left_out:
        raise InputError(
            f"{name}: this copy of the record leaves out {', '.join(left_out)}; load the folder it was measured into"
        )
    return _value(class_of(name), record)


@cache
def class_of(name: str) -> type:
    """The class of an analysis' record."""
    return pkgutil.resolve_name(":".join(registry.row(name).record))


def _value(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        wanted = [argument for argument in arguments if argument is not type(None)]
        return None if value is None else _value(wanted[0], value) if len(wanted) == 1 else value
    if kind is np.ndarray:
        return _array(value)
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{key: _value(hints[key], part) for key, part in value.items() if key in hints})
    if origin in (list, tuple) and isinstance(value, list):
        items = [_value(arguments[0], part) for part in value]
        return tuple(items) if origin is tuple else items
    if isinstance(value, Mapping) and len(arguments) == 2:
        return {key: _value(arguments[1], part) for key, part in value.items()}
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _array(value: Any) -> np.ndarray:
    """Nested lists as float64, NaN for null; whole numbers stay whole. A missing row is NaN throughout."""
    if value is None or not isinstance(value, list):
        return np.asarray(np.nan if value is None else value)
    parts = [_array(part) for part in value]
    shape = next((part.shape for part in parts if part.shape), ())
    return np.array([np.broadcast_to(part, shape) for part in parts]) if parts else np.empty(0)


@cache
def axes(kind: type) -> dict[str, tuple[str, ...]]:
    """Field of a record's class → names of its array's axes, as the comment beside the field says.

    >>> from analyses.head_grams.analysis import HeadGrams
    >>> axes(HeadGrams)["singvals"]
    ('layer', 'head', 'head_dim')
    """
    import inspect

    lines, _ = inspect.getsourcelines(kind)
    named = {}
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if token.type != tokenize.COMMENT:
            continue
        field = re.match(r"\s*(\w+):", lines[token.start[0] - 1])
        found = AXES.match(token.string.removeprefix("#").strip())
        if field and found:
            words = found[1].split(",") if found[1] else found[2].strip("[]").split("][")
            named[field[1]] = tuple(word.strip() for word in words if word.strip())
    return named
