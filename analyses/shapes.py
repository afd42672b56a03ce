"""Shapes of JSON that is read back: what a type's annotations say of the values that were written from it.

A shape is taken from the source of a dataclass or TypedDict, which is parsed and not imported: a page is rendered
without loading the libraries that measure. Every value in a file that comes from elsewhere passes `require`, so the
code behind it meets numbers where it expects numbers. Keys that a type does not know are left alone: nobody reads them.
"""

import ast
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.errors import InputError

ROOT = Path(__file__).parents[1]
LARGEST_INT = 2**63  # of a count, a seed, a number of bytes; larger ones are no number of ours
SHOWN = 40  # characters of a value in a message

Place = tuple[str, ...]
Misfit = tuple[Place, str, Any]
"""(place of the value, what was expected, the value)."""
MISSING = object()


@dataclass(frozen=True, slots=True)
class Shape:
    """What a value must be."""

    words: str  # "a number", "a list of texts"
    fits: Callable[[Any], Iterator[Misfit]]  # value → what does not fit, the first alone
    null: bool = False  # whether null is one of its values


def require(shape: Shape, value: Any, where: str, *, absent: Callable[[Place], bool] = lambda place: False) -> None:
    """Raise InputError in one line, naming the first place at which a value has not its shape.

    Parameters
    ----------
    where : the file, for the message.
    absent : whether a value that is null or missing at this place is accounted for.
    """
    for place, words, found in shape.fits(value):
        if (found is None or found is MISSING) and absent(place):
            continue
        path = ".".join(place) or "its content"
        got = "it is missing" if found is MISSING else f"got {_shown(found)}"
        raise InputError(f"{where}: {path}: expected {words}, {got}")


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | None):
        text = repr(value) if not isinstance(value, int) or abs(value) < LARGEST_INT else "a huge number"
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return {list: "a list", dict: "an object"}.get(type(value), type(value).__name__)


# --- the shapes there are -----------------------------------------------------------------------


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -LARGEST_INT < value < LARGEST_INT if isinstance(value, int) else math.isfinite(value)


def _simple(words: str, test: Callable[[Any], bool]) -> Shape:
    def fits(value: Any) -> Iterator[Misfit]:
        if not test(value):
            yield (), words, value

    return Shape(words, fits)


def _text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)  # half a character of UTF-16


ANY = Shape("anything", lambda value: iter(()), null=True)
NULL = Shape("null", lambda value: iter(()) if value is None else iter([((), "null", value)]), null=True)
NUMBER = _simple("a finite number", _number)
INTEGER = _simple("a whole number", lambda value: _number(value) and isinstance(value, int))
TRUTH = _simple("true or false", lambda value: isinstance(value, bool))
TEXT = _simple("a text", _text)
SIMPLE = {
    "Any": ANY, "object": ANY, "float": NUMBER, "int": INTEGER, "bool": TRUTH, "str": TEXT, "None": NULL, "Path": TEXT,
}  # fmt: skip


def listed(item: Shape) -> Shape:
    """A list of any length."""

    def fits(value: Any) -> Iterator[Misfit]:
        if not isinstance(value, list):
            yield (), "a list", value
        elif item is NUMBER and set(map(type, value)) == {float}:  # millions of them
            if not all(map(math.isfinite, value)):
                yield (), "finite numbers", math.inf
        else:
            for i, part in enumerate(value):
                yield from _below(str(i), item, part)

    return Shape("a list", fits)


def grid() -> Shape:
    """An array as nested lists of numbers, null where one is not defined."""

    def fits(value: Any) -> Iterator[Misfit]:
        if isinstance(value, list):
            if set(map(type, value)) != {float} or not all(map(math.isfinite, value)):
                for i, part in enumerate(value):
                    yield from _below(str(i), array, part)
        elif value is not None:
            yield from NUMBER.fits(value)

    array = Shape("an array of numbers", fits)
    return array


def pair(items: list[Shape]) -> Shape:
    """A list of so many."""
    words = f"a list of {len(items)}"

    def fits(value: Any) -> Iterator[Misfit]:
        if not isinstance(value, list) or len(value) != len(items):
            yield (), words, value
        else:
            for i, (item, part) in enumerate(zip(items, value, strict=True)):
                yield from _below(str(i), item, part)

    return Shape(words, fits)


def keyed(item: Shape) -> Shape:
    """An object with any names."""
    words = "an object"

    def fits(value: Any) -> Iterator[Misfit]:
        if not isinstance(value, Mapping):
            yield (), words, value
        else:
            for key, part in value.items():
                yield from _below(key, item, part)

    return Shape(words, fits)


def fields(name: str, known: Mapping[str, Shape], optional: frozenset[str]) -> Shape:
    """An object with these names."""

    def fits(value: Any) -> Iterator[Misfit]:
        if not isinstance(value, Mapping):
            yield (), f"an object, {name}", value
            return
        for key, item in known.items():
            if key in value:
                yield from _below(key, item, value[key])
            elif key not in optional:
                yield (key,), item.words, MISSING

    return Shape(f"an object, {name}", fits)


def either(choices: list[Shape]) -> Shape:
    """One of several; of what fits none, the misfit that lies deepest is told."""
    words = " or ".join(dict.fromkeys(choice.words for choice in choices))

    def fits(value: Any) -> Iterator[Misfit]:
        if value is None and null:
            return
        misfits = []
        for choice in choices:
            if (misfit := next(choice.fits(value), None)) is None:
                return
            misfits.append(misfit)
        deepest = max(misfits, key=lambda misfit: len(misfit[0]))
        yield deepest if deepest[0] else ((), words, value)

    null = any(choice.null for choice in choices)
    return Shape(words, fits, null)


def constants(values: list[Any]) -> Shape:
    """One of these values."""
    words = f"one of {', '.join(map(str, values))}"
    return _simple(words, lambda value: any(type(value) is type(known) and value == known for known in values))


def _below(key: str, shape: Shape, value: Any) -> Iterator[Misfit]:
    for place, words, found in shape.fits(value):
        yield (key, *place), words, found


# --- from annotations ---------------------------------------------------------------------------


@functools.cache
def shape(module: str, name: str) -> Shape:
    """The shape of a dataclass or TypedDict of this project, or of a name that an annotation may hold."""
    statement, home = _definition(module, name)
    if isinstance(statement, ast.ClassDef):
        return _of_class(statement, home)
    return _of(statement, home)


def _of_class(node: ast.ClassDef, module: str) -> Shape:
    known: dict[str, Shape] = {}
    optional: set[str] = set()
    for line in (line for owner, _ in _ancestors(node, module) for line in owner.body):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            annotation = line.annotation
            if _named(annotation) == "ClassVar":
                continue
            if _named(annotation) == "NotRequired" or "if not empty" in ast.unparse(line.value or ast.Constant(0)):
                optional.add(line.target.id)
                annotation = annotation.slice if _named(annotation) == "NotRequired" else annotation
            known[line.target.id] = _of(annotation, module)
    return fields(node.name, known, frozenset(optional))


def _ancestors(node: ast.ClassDef, module: str) -> Iterator[tuple[ast.ClassDef, str]]:
    """The class behind those of this project that it extends."""
    for base in node.bases:
        if _named(base) not in ("TypedDict", "NamedTuple", "Generic", "Protocol"):
            above, home = _definition(module, ast.unparse(base))
            if isinstance(above, ast.ClassDef):
                yield from _ancestors(above, home)
    yield node, module


def _of(node: ast.expr, module: str) -> Shape:
    match node:
        case ast.Constant(value=None):
            return NULL
        case ast.Constant(value=str(text)):
            return _of(ast.parse(text, mode="eval").body, module)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return either([_of(left, module), _of(right, module)])
        case ast.Subscript(slice=inner):
            return _generic(_named(node), inner.elts if isinstance(inner, ast.Tuple) else [inner], module)
        case ast.Name(id=name) if name in SIMPLE:
            return SIMPLE[name]
        case ast.Attribute() if ast.unparse(node) in ("np.ndarray", "torch.Tensor"):
            return grid()
        case ast.Name() | ast.Attribute():
            return shape(module, ast.unparse(node))
    raise TypeError(f"{module}: no shape for the annotation {ast.unparse(node)}")


def _generic(name: str, inner: list[ast.expr], module: str) -> Shape:
    if name == "Literal":
        return constants([part.value for part in inner if isinstance(part, ast.Constant)])
    if name in ("dict", "Mapping"):
        return keyed(_of(inner[1], module))
    if name in ("list", "Sequence", "tuple") and (name != "tuple" or ast.unparse(inner[-1]) == "..."):
        return listed(_of(inner[0], module))
    if name == "tuple":
        return pair([_of(part, module) for part in inner])
    raise TypeError(f"{module}: no shape for {name}[…]")


def _named(node: ast.expr) -> str:
    """The last word of what a node names: `dict` of `dict[str, int]`."""
    return ast.unparse(node.value if isinstance(node, ast.Subscript) else node).rpartition(".")[2]


def _definition(module: str, name: str) -> tuple[ast.ClassDef | ast.expr, str]:
    """The class, or the value of an alias, that a name stands for in a module, and the module that it is of."""
    first, _, rest = name.partition(".")
    for node in _parsed(module):
        if isinstance(node, ast.ClassDef) and node.name == first:
            return node, module
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == first for target in node.targets):
            return node.value, module
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == first:
                    inside = f"{node.module}.{alias.name}"
                    return _definition(inside, rest) if rest else _definition(node.module, alias.name)
    raise TypeError(f"{module}: {name} is no type of its own")


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _parsed(module: str) -> tuple[ast.stmt, ...]:
    return tuple(ast.parse(_source(module).read_bytes()).body)
