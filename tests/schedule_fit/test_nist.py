"""The least squares of schedules on NIST's reference datasets: certified digits, signs included."""

import math

import numpy as np
import pytest

from analyses.schedule_fit.fitting import fit, parameters
from analyses.schedule_fit.forms import Form
from tests.schedule_fit.nist import DATASETS, Dataset

RSS_DIGITS, PARAMETER_DIGITS = 10, 5  # a search ends when the sum gains 1e-10; its root is what parameters get


def form_of(data: Dataset) -> Form:
    """A dataset's model as a form: its shape at NIST's own x, its starting points as the grid, no bounds.

    Parameters are counted in units of their last start, since a form's are numbers of order one.
    """
    starts = np.array(data.starts)
    unit = np.abs(starts[-1])
    unbounded = np.full(len(unit), np.inf)
    return Form(
        name=data.name,
        formula="",
        parameters=len(unit) + 2,
        shape=lambda theta, layers: (data.curve(theta * unit), data.jacobian(theta * unit) * unit[:, None]),
        grid=lambda spread: [starts / unit],
        bounds=np.stack([-unbounded, unbounded]),
        contains={},
        report=lambda scale, theta, layers: {"b1": scale} | {f"b{i + 2}": float(b) for i, b in enumerate(theta * unit)},
        evaluate=lambda p, ell: ell,
    )


def digits(value: float, certified: float) -> float:
    """Digits that agree with the certified value (NIST's log relative error), at most the eleven that are certified."""
    return 11.0 if value == certified else min(11.0, -math.log10(abs(value / certified - 1)))


def test_digits_count_a_wrong_sign_as_none():
    assert digits(-2.0, 2.0) < 0 and digits(2.002, 2.0) == pytest.approx(3)


@pytest.mark.parametrize("data", DATASETS, ids=lambda data: data.name)
def test_the_certified_parameters_and_residual_sum_are_found_from_nists_starts(data):
    form = form_of(data)
    fits = fit(form, data.y[None])
    found = parameters(form, fits)
    assert digits(float(fits.rss[0]), data.rss) >= RSS_DIGITS
    for (name, value), certified in zip(found.items(), data.certified, strict=True):
        assert digits(value, certified) >= PARAMETER_DIGITS, name


@pytest.mark.parametrize("data", DATASETS, ids=lambda data: data.name)
def test_the_certified_parameters_give_the_certified_residual_sum(data):
    curve = data.certified[0] + data.curve(np.array([data.certified[1:]]))[0]
    assert digits(float(np.square(data.y - curve).sum()), data.rss) > 7


@pytest.mark.parametrize("data", DATASETS, ids=lambda data: data.name)
def test_the_jacobian_of_a_dataset_is_the_derivative_of_its_curve(data):
    theta = np.array([data.starts[-1]], dtype=float)
    for i, b in enumerate(theta[0]):
        step = np.zeros_like(theta)
        step[0, i] = 1e-6 * abs(b)
        slope = (data.curve(theta + step) - data.curve(theta - step))[0] / (2 * step[0, i])
        scale = np.abs(slope).max()
        np.testing.assert_allclose(data.jacobian(theta)[0, i], slope, atol=1e-7 * scale)  # of a central difference
