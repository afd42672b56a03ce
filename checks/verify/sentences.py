"""Sentences of two records compared: notes, methods and reasons, which explain numbers and may hold some.

They are written by the analysis from what it measured, so of the same model they are the same but for the last place
of a number; a sentence that nobody measured is found by its words.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from checks.verify.differences import SENTENCES, Leaf

NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
PARTS = ("notes", "absent", "metrics", "identities", "dtype")
OF_THE_MACHINE = frozenset({"devices"})


def leaves(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Leaf]:
    """The sentences that differ in more than the last place of a number."""
    left_out = set(old.get("shortened", ()))
    found = []
    for part in PARTS:
        if part in left_out:
            continue
        said, given = ({} if part not in record else dict(_texts(record[part], part)) for record in (old, new))
        if part == "absent":
            said, given = (
                {path: text for path, text in side.items() if path.removeprefix("absent.") not in left_out}
                for side in (said, given)
            )
        found += [_leaf(path, said.get(path), given.get(path)) for path in sorted({*said, *given})]
    return [leaf for leaf in found if leaf is not None]


def alike(one: str, other: str) -> bool:
    """Whether two texts are the same but for one unit in the last place of numbers.

    >>> alike("r = 0.503, 12 heads", "r = 0.504, 12 heads"), alike("r = 0.503", "r = 0.513"), alike("holds", "fails")
    (True, False, False)
    """
    if NUMBER.sub("0", one) != NUMBER.sub("0", other):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(a == b or abs(_value(a) - _value(b)) <= 1.01 * max(_unit(a), _unit(b)) for a, b in pairs)


def _value(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def _unit(number: str) -> float:
    """Of its last place; none for a whole number, which counts something."""
    mantissa, _, exponent = number.partition("e")
    _, point, places = mantissa.partition(".")
    return 10.0 ** (int(exponent or 0) - len(places)) if point or exponent else 0.0


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, text) of what is a sentence."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if path.startswith("absent") or isinstance(part, Mapping | list) or key in SENTENCES - OF_THE_MACHINE:
                yield from _texts(part, f"{path}.{key}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            if isinstance(part, str | Mapping | list):
                yield from _texts(part, f"{path}.{i}")
    elif isinstance(value, str):
        yield path, value


def _leaf(path: str, said: str | None, given: str | None) -> Leaf | None:
    if said is not None and given is not None and alike(said, given):
        return None
    what = "missing" if said is None or given is None else "drifted"
    return Leaf(path=path, status=what, recorded=said or "not there", found=given or "not there", moved=None,
                tolerance=0.0, source="a sentence says the same every time")  # fmt: skip
