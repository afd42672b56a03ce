"""Stored directions compared: a singular vector up to its sign, a near tie up to its plane.

Vectors are compared by the angle between lines, never entry by entry. Where two singular values lie so
close that rounding may turn their vectors into each other, the space that they span is compared by its
largest principal angle; a space that the stored vectors cut in the middle says nothing and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEPARATE = 10.0  # gap over movement from which on a space has a direction
TIE = 1e-3  # relative to the largest singular value; closer ones are one space
STORED = 1e-5  # radians; two float32 copies of one unit vector, with room for a few hundred entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Angles:
    """Angles between the lines or spaces of two sets of vectors."""

    largest: float  # radians
    where: tuple[int, ...]  # of the largest: leading axes, then the first mode of its space
    compared: int  # lines and spaces
    left_out: int  # vectors in a tie that the stored ones cut
    gap: float = np.inf  # of the singular values around the space of the largest angle, least over all compared


def angles(recorded: np.ndarray, found: np.ndarray, values: np.ndarray | None, moved: float = 0.0) -> Angles:
    """Compare directions with the gauge that they have.

    Parameters
    ----------
    recorded, found : (…, mode, hidden), orthonormal along hidden, up to sign and up to turns within ties; zero
        beyond the rank.
    values : (…, at least mode) singular values, descending; None: every vector stands alone.
    moved : how far these values may move; those closer than ten times that are a tie.

    >>> e = np.eye(3)[None, :2]
    >>> angles(e, -e, None).largest
    0.0
    """
    largest, where, compared, left_out, distance = 0.0, (), 0, 0, np.inf
    for at in np.ndindex(recorded.shape[:-2]):
        singular = None if values is None else values[at]
        for space in spaces(singular, recorded.shape[-2], SEPARATE * moved):
            if space is None:
                left_out += 1
                continue
            if not recorded[at][space].any() and not found[at][space].any():
                continue
            angle = _largest_angle(recorded[at][space], found[at][space])
            compared += 1
            if not angle <= largest or not where:  # also for what is no number
                largest, where, distance = angle, (*at, space[0]), _gap(singular, space)
    return Angles(largest=largest, where=where, compared=compared, left_out=left_out, gap=distance)


def turns(found: Angles, moved: float) -> float:
    """How far a space turns when its matrix moves by as much as its singular values do, in radians."""
    return 4 * moved / found.gap if found.gap else np.inf


def _gap(values: Sequence[float] | None, space: list[int]) -> float:
    """Between the singular values of a space and the nearest other one."""
    if values is None:
        return np.inf
    first, last = space[0], space[-1]
    above = values[first - 1] - values[first] if first else np.inf
    return float(min(above, values[last] - values[last + 1] if last + 1 < len(values) else values[last]))


def spaces(values: Sequence[float] | None, modes: int, close: float = 0.0) -> list[list[int] | None]:
    """Modes grouped where neighbouring singular values tie; None for a group that goes on beyond `modes`.

    >>> spaces([3.0, 2.0, 2.0, 1.0], 3), spaces([3.0, 2.0, 2.0], 2)
    ([[0], [1, 2]], [[0], None])
    """
    if values is None:
        return [[mode] for mode in range(modes)]
    tied = [abs(values[i] - values[i + 1]) <= max(close, TIE * abs(values[0])) for i in range(len(values) - 1)]
    groups: list[list[int] | None] = []
    group: list[int] = []
    for mode in range(modes):
        group.append(mode)
        on = mode < len(tied) and tied[mode]
        if not on or mode == modes - 1:
            groups.append(None if on else group)
            group = []
    return groups


def _largest_angle(one: np.ndarray, other: np.ndarray) -> float:
    """Largest principal angle between two spaces of rows, by its sine, which is exact where the angle is small."""
    longer = np.linalg.norm(one, axis=-1) - np.linalg.norm(other, axis=-1)
    if not np.isfinite(one).all() or np.abs(longer).max() > STORED:
        return np.inf  # no unit vectors, or as many as on the other side
    a, b = (np.linalg.qr(np.asarray(rows, dtype=np.float64).T)[0] for rows in (one, other))
    sine = np.linalg.norm(b - a @ (a.T @ b), ord=2)
    return float(np.arcsin(min(1.0, sine)))
