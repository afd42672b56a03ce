"""Modes whose singular values are close are compared as the space they span; modes of rounding are not compared."""

import numpy as np
import pytest

from checks.verify.differences import Tolerance
from checks.verify.modes import leaves, separated

MOVED = 1e-9  # of singular values, in these tests


def record(values: list[float], seed: int = 0, turn: float = 0.0, of: tuple[int, int] = (1, 2)) -> dict:
    """Scores and loadings with these singular values, two modes turned into each other by `turn` radians."""
    draws = np.random.default_rng(seed)
    rows = np.linalg.qr(draws.standard_normal((6, len(values))))[0]
    layers = np.linalg.qr(draws.standard_normal((9, len(values))))[0] * values
    cos, sin = np.cos(turn), np.sin(turn)
    for part in (rows, layers):
        part[:, of] = part[:, of] @ np.array([[cos, -sin], [sin, cos]])
    parts = {"singvals": values, "loadings": rows, "scores": layers}
    return {f"scale_pca_{name}": np.asarray(part).tolist() for name, part in parts.items()}


def worst(old: dict, new: dict) -> str:
    found = {leaf.status for leaf in leaves("null_residual", old, new, lambda p: Tolerance(size=MOVED, source=""))}
    return next(word for word in ("missing", "drifted", "within tolerance", "identical") if word in found)


def test_a_turn_of_close_modes_is_no_difference_and_of_modes_apart_it_is():
    close, apart = [3.0, 1.0, 1.0 - MOVED, 0.2], [3.0, 1.0, 0.8, 0.2]
    assert worst(record(close), record(close, turn=0.7)) == "within tolerance"
    assert worst(record(apart), record(apart, turn=0.7)) == "drifted"
    assert worst(record(apart), record(apart, turn=1e-3)) == "drifted"
    assert worst(record(apart), record(apart, turn=MOVED)) == "within tolerance"


def test_a_sign_is_no_difference():
    old = record([3.0, 1.0, 0.5])
    new = {name: (-np.array(part)).tolist() if "singvals" not in name else part for name, part in old.items()}
    assert worst(old, new) == "identical"


def test_vectors_of_singular_values_that_rounding_makes_are_not_compared():
    values = [3.0, 1.0, 1e-17, 0.0]
    assert worst(record(values), record(values, turn=1.0, of=(2, 3))) in ("identical", "within tolerance")
    assert separated(np.array(values), MOVED) == [[0], [1]]


@pytest.mark.parametrize("part", ["loadings", "scores"])
def test_another_vector_under_the_same_values_and_one_that_is_no_number_drift(part):
    old = record([3.0, 1.0, 0.5])
    for wrong in (0.5, float("nan")):
        rows = np.array(old[f"scale_pca_{part}"])
        rows[0, 0] += wrong
        assert worst(old, old | {f"scale_pca_{part}": rows.tolist()}) == "drifted"


def test_another_number_of_modes_is_missing():
    assert worst(record([3.0, 1.0, 0.5]), record([3.0, 1.0, 0.5, 0.1])) == "missing"
