"""Two records of one analysis compared, leaf by leaf.

Every number has a tolerance of its own (`checks.verify.tolerances`); whatever is not a number must be the
same, unless the perturbations have shown that rounding alone decides it. Sentences are left out: they
explain numbers and are none. A leaf that only one record has is a difference, on whichever side.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["identical", "within tolerance", "drifted", "missing"]
WORST: tuple[Status, ...] = ("missing", "drifted", "within tolerance", "identical")

# What says how a record was made, or explains it; keys and checksums are compared apart.
OUTSIDE = frozenset(
    {"absent", "arrays", "checksum", "dtype", "key", "model", "notes", "schema_version", "shortened"}
)
SENTENCES = frozenset({"method", "reason", "dtype", "attention", "devices"})  # of a metric; how a pass was made


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a number may move, and why that far; `unstable` where a choice hangs on rounding alone."""

    size: float  # in the number's own unit
    source: str
    unstable: bool = False
    known: bool = True  # False where no movement was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One value of a record, and the same of the other."""

    path: str
    status: Status
    recorded: Any
    found: Any
    moved: float | None  # None where it is not a number
    tolerance: float
    source: str  # of the tolerance

    @property
    def drifts(self) -> bool:
        """Further than its tolerance, or there on one side alone."""
        return self.status in ("drifted", "missing")

    @property
    def ratio(self) -> float:
        """Movement in units of the tolerance; infinite for what is missing or not a number."""
        if self.status in ("identical", "missing") or self.moved is None:
            return 0.0 if self.status in ("identical", "within tolerance") else math.inf
        return self.moved / self.tolerance if self.tolerance else math.inf


def compare(
    recorded: Mapping[str, Any],
    found: Mapping[str, Any],
    tolerance: Callable[[str], Tolerance],
    apart: frozenset[str] = frozenset(),
) -> list[Leaf]:
    """All leaves of two records; metrics first, then identities, then the rest.

    Parameters
    ----------
    recorded : may lack the top-level keys and the arrays that it lists under `shortened`.
    tolerance : of a leaf, by its pattern: the dotted path with `*` for every place in a list.
    apart : dotted paths that are compared otherwise (`checks.verify.modes`).
    """
    shortened = {tuple(pattern.split(".")) for pattern in recorded.get("shortened", ())}
    names = [name for name in {**recorded, **found} if name not in OUTSIDE and (name,) not in shortened]
    order = {"metrics": 0, "identities": 1}
    leaves: list[Leaf] = []
    for name in sorted(names, key=lambda name: (order.get(name, 2), name)):
        for path, old, new in _pairs(recorded.get(name, _GONE), found.get(name, _GONE), (name,)):
            if pattern_of(path) not in shortened and ".".join(p for p in path if isinstance(p, str)) not in apart:
                allowed = tolerance(".".join(pattern_of(path)))
                leaves.append(leaf(".".join(map(str, path)), old, new, allowed))
    return leaves


def worst(leaves: list[Leaf]) -> Leaf | None:
    """The leaf that moved most in units of its tolerance; a metric before an identity before anything else."""
    ranked = sorted(leaves, key=lambda leaf: (WORST.index(leaf.status), _rank(leaf.path), -leaf.ratio))
    return ranked[0] if ranked else None


def status(leaves: list[Leaf]) -> Status:
    return min((leaf.status for leaf in leaves), key=WORST.index, default="missing")


def pattern_of(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """A path with `*` in place of the numbers of lists.

    >>> pattern_of(("static", 3, "singvals_per_head", 0, 1))
    ('static', '*', 'singvals_per_head', '*', '*')
    """
    return tuple("*" if isinstance(part, int) else part for part in path)


_GONE = object()
Path = tuple[str | int, ...]


def _rank(path: str) -> int:
    return {"metrics": 0, "identities": 1}.get(path.partition(".")[0], 2)


def _pairs(old: Any, new: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new} - SENTENCES):
            yield from _pairs(old.get(key, _GONE), new.get(key, _GONE), (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        for i in range(max(len(old), len(new))):
            yield from _pairs(old[i] if i < len(old) else _GONE, new[i] if i < len(new) else _GONE, (*path, i))
    else:
        yield path, old, new


def leaf(path: str, old: Any, new: Any, allowed: Tolerance) -> Leaf:
    """One value held against another, with the tolerance that it is allowed."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new))
    moved = abs(new - old) if numbers else None
    what: Status
    if old is _GONE or new is _GONE or (old is None) != (new is None):
        what = "missing"
    elif type(old) is type(new) and old == new:
        what = "identical"
    elif (moved is not None and moved <= allowed.size) or allowed.unstable:
        what = "within tolerance"
    else:
        what = "drifted"
    return Leaf(
        path=path,
        status=what,
        recorded=_plain(old),
        found=_plain(new),
        moved=moved,
        tolerance=allowed.size,
        source=allowed.source,
    )


def _plain(value: Any) -> Any:
    """A value for the report: one that is not there, or that is not a plain value, in words."""
    if value is _GONE:
        return "not there"
    return value if value is None or isinstance(value, str | int | float) else type(value).__name__
