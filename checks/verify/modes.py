"""Modes of a decomposition compared by what is determined: spaces of close singular values, never one vector of them.

A mode's vector turns by the movement of its matrix over the gap to the other singular values (Davis and Kahan), so it
is compared where that is small. Modes whose values lie as close as these move span a space together; of it the
projector and the part of the matrix that it carries are compared. Modes whose values are nothing but rounding are not
compared at all: every vector is as good there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checks.verify.differences import Leaf, Tolerance

SEPARATE = 10.0  # gap over movement from which on a space has a direction; below, it would turn by a tenth


@dataclass(frozen=True, slots=True)
class Modes:
    """Where a record keeps a decomposition: dotted paths of (mode,), (row, mode) and (layer, mode)."""

    values: str
    loadings: str
    scores: str


MODES: Mapping[str, tuple[Modes, ...]] = {
    "null_residual": (
        Modes("scale_pca_singvals", "scale_pca_loadings", "scale_pca_scores"),
        *(
            Modes(f"{name}.singvals", f"{name}.loadings", f"{name}.scores")
            for name in ("scale_pca_standardised", "invariant_scale_pca")
        ),
    ),
}
"""Of each analysis that keeps some."""


def compared_here(analysis: str) -> frozenset[str]:
    """Paths of loadings and scores, which are not compared number by number."""
    return frozenset(path for modes in MODES.get(analysis, ()) for path in (modes.loadings, modes.scores))


def leaves(
    analysis: str, old: Mapping[str, Any], new: Mapping[str, Any], tolerance: Callable[[str], Tolerance]
) -> list[Leaf]:
    """One leaf for each space of modes; none where a record was shortened, or neither has the decomposition."""
    found: list[Leaf] = []
    for modes in MODES.get(analysis, ()):
        sides = [[_at(record, path) for path in (modes.values, modes.loadings, modes.scores)] for record in (old, new)]
        if any(part is None for side in sides for part in side):
            continue
        moved = tolerance(f"{modes.values}.*").size
        found += _spaces(modes.loadings, *([np.array(part, dtype=float) for part in side] for side in sides), moved)
    return found


def _at(record: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        record = record.get(name) if isinstance(record, Mapping) else None
    return record


def _spaces(path: str, old: Sequence[np.ndarray], new: Sequence[np.ndarray], moved: float) -> Iterator[Leaf]:
    if [part.shape for part in old] != [part.shape for part in new]:
        shapes = (str([part.shape for part in side]) for side in (old, new))
        yield _leaf(path, *shapes, None, 0.0)
        return
    values = new[0]
    for space in separated(values, moved):
        allowed = moved / gap(values, space)
        sides = [(rows[:, space], scores[:, space]) for _, rows, scores in (old, new)]
        turned, part = (
            float(np.abs(a - b).max(initial=0.0))
            for a, b in zip(*([rows @ rows.T, scores @ rows.T] for rows, scores in sides), strict=True)
        )
        name = f"{path} of modes {', '.join(map(str, space))}"
        yield _leaf(name, 0.0, turned, turned, 4 * allowed)
        yield _leaf(f"{name}, with their scores", 0.0, part, part, 4 * allowed * values[0] + moved)


def separated(values: np.ndarray, moved: float) -> list[list[int]]:
    """Modes in groups that have a direction: apart from all others by more than SEPARATE times the movement.

    The last group of values that rounding makes is left out.

    >>> separated(np.array([3.0, 2.0, 1.9999, 0.0]), 1e-3)
    [[0], [1, 2]]
    """
    groups: list[list[int]] = []
    for mode, value in enumerate(values):
        if groups and values[mode - 1] - value <= SEPARATE * moved:
            groups[-1].append(mode)
        else:
            groups.append([mode])
    return [group for group in groups if values[group[-1]] > SEPARATE * moved]


def gap(values: np.ndarray, space: Sequence[int]) -> float:
    """Distance of a group's values to the nearest other one, and to 0."""
    above = values[space[0] - 1] - values[space[0]] if space[0] else np.inf
    below = values[space[-1]] - (values[space[-1] + 1] if space[-1] + 1 < len(values) else 0.0)
    return float(min(above, below))


def _leaf(path: str, old: Any, new: Any, moved: float | None, size: float) -> Leaf:
    fits = moved is not None and moved <= size  # false for what is no number
    what = "missing" if moved is None else "identical" if moved == 0 else "within tolerance" if fits else "drifted"
    source = "movement of the singular values over the gap between them"
    return Leaf(path=path, status=what, recorded=old, found=new, moved=moved, tolerance=float(size), source=source)
