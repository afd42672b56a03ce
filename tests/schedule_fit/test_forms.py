"""The forms of a schedule and their least squares on the log scale."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import optimize

from analyses.schedule_fit.fitting import aicc, akaike_weights, fit, fit_all, parameters
from analyses.schedule_fit.forms import (
    CONSTANT,
    COOLING_LAWS,
    EXPONENT_BOUND,
    EXPONENTIAL,
    HAJEK,
    HAJEK_C2,
    KIRKPATRICK,
    LINEAR,
    LINEAR_COOLING,
    OFFSET_POWER,
    ONE_PIECE,
    POWER,
)
from tests.strategies import seeds

PLANTED = (
    (CONSTANT, {"a": 3.0}),
    (LINEAR, {"a": 2.0, "b": 0.25}),
    (LINEAR, {"a": 9.0, "b": -0.25}),
    (POWER, {"a": 5.0, "b": -0.7}),
    (POWER, {"a": 5.0, "b": 12.0}),
    (EXPONENTIAL, {"a": 0.02, "b": 0.1}),
    (OFFSET_POWER, {"a": 1.0, "b": 4.0, "c": -1.5}),
    (OFFSET_POWER, {"a": 30.0, "b": -2.0, "c": 0.6}),
    (OFFSET_POWER, {"a": 1.0, "b": 0.01, "c": 2.5}),
    (KIRKPATRICK, {"T0": 7.0, "alpha": 0.9}),
    (LINEAR_COOLING, {"T0": 4.0, "Tf": 1.0}),
    (HAJEK, {"c": 2.0}),
    (HAJEK_C2, {"c": 2.0, "c2": 4.5}),
    (HAJEK_C2, {"c": 2.0, "c2": 1.2}),
)


def planted_track(form, truth, *, layers=24):
    """A track without noise that follows a form exactly, and the parameters it was made with."""
    return form.evaluate(truth, np.arange(layers, dtype=float)), truth


def noisy_logs(seed, *, tracks=3, layers=20):
    """Logarithms of tracks between white noise and a random walk."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(tracks, layers)).cumsum(1) * 10.0 ** rng.uniform(-3, 0) + rng.normal(
        0, 0.02, (tracks, layers)
    )


@pytest.mark.parametrize(("form", "truth"), PLANTED, ids=lambda x: getattr(x, "name", ""))
def test_planted_parameters_are_recovered(form, truth):
    track, truth = planted_track(form, truth)
    # Sixteen digits less what the search leaves: a gain of 1e-12 in the square sum is 1e-6 in a parameter at most.
    assert parameters(form, fit(form, np.log(track)[None])) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize(("form", "truth"), PLANTED, ids=lambda x: getattr(x, "name", ""))
def test_planted_parameters_are_recovered_under_noise_within_their_standard_error(form, truth):
    track, truth = planted_track(form, truth, layers=34)
    noise = 1e-4
    logs = np.log(track) + np.random.default_rng(0).normal(0, noise, (200, 34))
    fits = fit(form, logs)
    found = np.array([list(parameters(form, fits, i).values()) for i in range(200)])
    error = found.std(0, ddof=1) / math.sqrt(200)
    # Four standard errors of the mean over 200 tracks, and curvature's bias of second order in the noise.
    assert np.all(
        np.abs(found.mean(0) - list(truth.values())) < 4 * error + 20 * noise**2 * np.abs(found.mean(0)) + 1e-9
    )
    # Each residual square sum is noise² times χ² with as many degrees as layers less parameters.
    assert fits.rss.mean() == pytest.approx(noise**2 * (34 - form.parameters + 1), rel=5 * math.sqrt(2 / 30 / 200))


def test_aicc_is_what_the_formula_gives_by_hand():
    # n = 10, RSS = 2, k = 3: 10·ln 0.2 + 6 + 24/6
    assert float(aicc(np.array(2.0), 10, 3)) == pytest.approx(-16.0943791243 + 10, rel=1e-10)


def test_akaike_weights_of_two_forms_two_apart_are_in_the_ratio_e():
    weights = akaike_weights({"a": 5.0, "b": 7.0, "c": None})
    assert weights["a"] / weights["b"] == pytest.approx(math.e, rel=1e-12)
    assert weights["a"] + weights["b"] == pytest.approx(1, rel=1e-15)
    assert weights["c"] is None


def test_aicc_is_undefined_when_layers_do_not_exceed_parameters_by_two():
    assert np.isnan(aicc(np.array(1.0), 4, 3))
    assert np.isfinite(aicc(np.array(1.0), 5, 3))


@given(seeds)
def test_a_richer_form_is_never_worse_than_its_special_cases(seed):
    logs = noisy_logs(seed)
    fits = fit_all(logs, ONE_PIECE) | {f"cooling {k}": v for k, v in fit_all(logs, COOLING_LAWS).items()}
    total = np.square(logs - logs.mean(1, keepdims=True)).sum(1)
    for special, general in (
        ("constant", "linear"),
        ("constant", "power"),
        ("constant", "exponential"),
        ("linear", "offset_power"),
        ("power", "offset_power"),
        ("cooling hajek", "cooling hajek_c2"),
    ):
        excess = (fits[general].rss - fits[special].rss) / total
        assert np.all(excess < 1e-12), (
            f"{general} is worse than {special} by {excess.max():.2e} of the total"
        )  # rounding


@given(seeds, st.sampled_from(ONE_PIECE + COOLING_LAWS), st.floats(-20, 20))
def test_a_constant_factor_moves_the_scale_alone(seed, form, shift):
    logs = noisy_logs(seed, tracks=1)
    one, other = fit(form, logs), fit(form, logs + shift)
    total = np.square(logs - logs.mean()).sum()
    # The residual sum is stationary, so it feels rounding of the shifted logarithms (4e-15) to first order at most.
    assert float(abs(one.rss - other.rss)[0]) < 1e-9 * float(total)
    assert np.allclose(one.curve + shift, other.curve, rtol=0, atol=1e-4 * math.sqrt(total))


@given(seeds)
def test_a_batch_fits_each_track_as_if_it_were_alone(seed):
    logs = noisy_logs(seed)
    total = np.square(logs - logs.mean(1, keepdims=True)).sum(1)
    reach = np.ptp(logs, axis=1).max(keepdims=True)  # of the batch, from which the grids of both are made
    for form in (POWER, EXPONENTIAL, LINEAR, OFFSET_POWER):
        alone = np.concatenate([fit(form, log[None], spread=reach).rss for log in logs])
        assert np.allclose(fit(form, logs).rss, alone, rtol=0, atol=1e-10 * total.max()), form.name


@given(seeds)
def test_reported_parameters_draw_the_fitted_curve(seed):
    logs = noisy_logs(seed, tracks=1)
    for form in ONE_PIECE + COOLING_LAWS:
        fits = fit(form, logs)
        drawn = form.evaluate(parameters(form, fits), np.arange(20.0))
        # a and b of the offset power cancel to 1e-6 of their size at worst, by the floor on its exponent.
        assert np.allclose(np.log(drawn), fits.curve[0], rtol=0, atol=1e-9), form.name


@pytest.mark.parametrize("form", [LINEAR, OFFSET_POWER, HAJEK_C2], ids=lambda f: f.name)
@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_what_scipy_finds_from_many_starts(form, seed):
    rng = np.random.default_rng(seed)
    logs = noisy_logs(seed, tracks=1)
    low, high = (np.clip(bound, -30, 30) for bound in form.bounds)

    def residual(x):
        return logs[0] - x[0] - form.shape(x[None, 1:], 20)[0][0]

    starts = [np.r_[logs.mean(), rng.uniform(low, high) * rng.uniform(0, 1, len(low)) ** 3] for _ in range(40)]
    bounds = np.r_[-np.inf, low], np.r_[np.inf, high]
    best = min(2 * optimize.least_squares(residual, x, bounds=bounds, xtol=1e-12, ftol=1e-12).cost for x in starts)
    total = float(np.square(logs - logs.mean()).sum())
    assert float(fit(form, logs).rss[0]) <= best + 1e-8 * total  # never worse than any of scipy's 40 answers


@given(seeds, st.sampled_from([LINEAR, OFFSET_POWER, HAJEK_C2, POWER, EXPONENTIAL]))
def test_the_jacobian_is_the_derivative_of_the_curve(seed, form):
    theta = np.random.default_rng(seed).uniform(-3, 3, (1, form.bounds.shape[1]))
    _, jacobian = form.shape(theta, 12)
    for k in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[0, k] = 1e-5
        difference = (form.shape(theta + step, 12)[0] - form.shape(theta - step, 12)[0]) / 2e-5
        # Central differences err by step² and by eps/step, both 1e-10, times curvatures of up to ln(12)³.
        assert np.allclose(jacobian[:, k], difference, rtol=1e-6, atol=1e-7), (form.name, theta)


def test_a_step_after_the_first_layer_ends_at_the_bound_of_the_exponent():
    track = np.r_[5.0, np.ones(23)]
    found = parameters(OFFSET_POWER, fit(OFFSET_POWER, np.log(track)[None]))
    assert found["c"] == -EXPONENT_BOUND


def test_a_falling_line_that_would_cross_zero_stays_positive():
    track = np.maximum(10.0 - np.arange(24), 0.01)  # the linear-space line is negative from layer 16 on
    fits = fit(LINEAR, np.log(track)[None])
    drawn = LINEAR.evaluate(parameters(LINEAR, fits), np.arange(24.0))
    assert np.all(drawn > 0) and np.isfinite(fits.rss[0])
