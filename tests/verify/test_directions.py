"""Directions are the same if they span the same lines; in a tie, the same space."""

import numpy as np
import pytest

from checks.verify.directions import angles, spaces

ROUNDING = 1e-14  # radians; a QR and two products of a few entries in float64


def orthonormal(seed: int, modes: int = 4, hidden: int = 9) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((hidden, modes)))[0].T


def test_a_sign_is_no_difference():
    rows = orthonormal(0)
    signs = np.array([1, -1, -1, 1])[:, None]
    assert angles(rows[None], (signs * rows)[None], None).largest == pytest.approx(0, abs=ROUNDING)


def test_a_known_angle_is_found_where_it_is():
    five = orthonormal(2, modes=5)
    rows, apart = np.stack([orthonormal(1), five[:4]]), five[4]
    turned, angle = rows.copy(), 0.01
    turned[1, 2] = np.cos(angle) * rows[1, 2] + np.sin(angle) * apart
    found = angles(rows, turned, None)
    assert found.largest == pytest.approx(angle, abs=ROUNDING) and found.where == (1, 2)


def test_a_turn_within_a_tie_is_no_difference_and_without_the_tie_it_is():
    rows, angle = orthonormal(3), 0.7
    turned = rows.copy()
    turned[1:3] = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ rows[1:3]
    tie, apart = np.array([3.0, 2.0, 2.0, 1.0]), np.array([3.0, 2.0, 1.5, 1.0])
    assert angles(rows[None], turned[None], tie[None]).largest == pytest.approx(0, abs=ROUNDING)
    assert angles(rows[None], turned[None], apart[None]).largest == pytest.approx(angle, abs=ROUNDING)


def test_a_tie_that_the_stored_vectors_cut_is_left_out():
    assert spaces([4.0, 2.0, 1.0, 1.0], 3) == [[0], [1], None]
    four = orthonormal(4)
    rows, other = four[:3], four[[0, 1, 3]]
    found = angles(rows[None], other[None], np.array([[4.0, 2.0, 1.0, 1.0]]))
    assert (found.compared, found.left_out) == (2, 1) and found.largest == pytest.approx(0, abs=ROUNDING)


def test_a_mode_that_is_not_there_on_either_side_is_no_line():
    rows = orthonormal(5)
    rows[3] = 0
    assert angles(rows[None], rows[None], None).compared == 3
