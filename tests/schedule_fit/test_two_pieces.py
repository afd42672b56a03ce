"""The two-piece form and what its advantage is worth."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from analyses.schedule_fit.fitting import fit
from analyses.schedule_fit.forms import CONSTANT, EXPONENTIAL
from analyses.schedule_fit.two_pieces import (
    LEAST_SEGMENT,
    advantage,
    calibrate,
    fit_two_pieces,
    piece_parameters,
    random_walk_tracks,
    share_at_least,
    white_noise_tracks,
)
from tests.strategies import seeds


def planted_break(*, layers=30, at=17, noise=0.0, seed=0):
    """ln y of a track that grows before layer `at`, jumps, and falls from it on; and its parameters."""
    truth = {"break_layer": float(at), "a1": 2.0, "b1": 0.04, "a2": 9.0, "b2": -0.05}
    ell = np.arange(layers)
    log = np.where(ell < at, np.log(truth["a1"]) + truth["b1"] * ell, np.log(truth["a2"]) + truth["b2"] * ell)
    return log + np.random.default_rng(seed).normal(0, noise, layers), truth


@pytest.mark.parametrize("at", [LEAST_SEGMENT, 11, 17, 30 - LEAST_SEGMENT])
def test_a_planted_break_is_found_in_its_layer_with_both_rates(at):
    log, truth = planted_break(at=at)
    assert piece_parameters(fit_two_pieces(log[None])) == pytest.approx(truth, rel=1e-12)  # closed form, 30 layers


@given(seeds, st.integers(8, 40))
def test_two_pieces_agree_with_trying_every_break_by_polyfit(seed, layers):
    log = np.random.default_rng(seed).normal(size=layers).cumsum()
    ell = np.arange(layers)
    losses = {
        k: sum(
            np.square(log[part] - np.polyval(np.polyfit(ell[part], log[part], 1), ell[part])).sum()
            for part in (slice(0, k), slice(k, layers))
        )
        for k in range(LEAST_SEGMENT, layers - LEAST_SEGMENT + 1)
    }
    found = fit_two_pieces(log[None])
    assert found.rss[0] == pytest.approx(min(losses.values()), rel=1e-9)  # QR against sums, 40 layers
    assert losses[int(found.break_layer[0])] == pytest.approx(min(losses.values()), rel=1e-9)


@given(seeds)
def test_two_pieces_are_never_worse_than_one_exponential(seed):
    logs = np.random.default_rng(seed).normal(size=(5, 20)).cumsum(1)
    assert np.all(fit_two_pieces(logs).rss <= fit(EXPONENTIAL, logs).rss * (1 + 1e-12))  # rounding


@given(seeds, st.floats(-30, 30))
def test_a_constant_factor_changes_neither_break_nor_rates(seed, shift):
    logs = np.random.default_rng(seed).normal(size=(1, 24)).cumsum(1)
    one, other = fit_two_pieces(logs), fit_two_pieces(logs + shift)
    assert one.break_layer[0] == other.break_layer[0]
    assert np.allclose(one.lines[..., 1], other.lines[..., 1], rtol=0, atol=1e-12)  # ln y of 30 is right to 4e-15


def test_a_clear_break_beats_noise_and_drift():
    log, _ = planted_break(noise=0.01)
    found = calibrate(log, np.full(30, log.mean()), log.std(), seed=0)
    assert found.p <= 0.05
    assert found.p == max(found.p_white_noise, found.p_random_walk)


def test_where_two_pieces_lose_nothing_is_simulated():
    log = 0.05 * np.arange(20.0) + np.random.default_rng(3).normal(0, 0.01, 20)
    found = calibrate(log, log, 0.01, seed=0)
    assert found.advantage <= 0 and found.p == 1 and found.p_random_walk is None and found.null is None


def test_calibration_repeats_for_a_seed_and_moves_with_it():
    log, _ = planted_break(noise=0.3)
    one, same, other = (calibrate(log, log * 0, 0.3, seed=s, resamples=99) for s in (1, 1, 2))
    assert one == same
    assert one != other


def rejected(tracks, resamples=59):
    """How many of the tracks two pieces win significantly, each calibrated about its own mean."""
    fits = fit(CONSTANT, tracks)
    spread = np.sqrt(fits.rss / (tracks.shape[1] - 1))
    found = [
        calibrate(log, curve, sd, seed=i, resamples=resamples)
        for i, (log, curve, sd) in enumerate(zip(tracks, fits.curve, spread, strict=True))
    ]
    return sum(f.p <= 0.05 for f in found), sum(f.advantage > 0 for f in found)


def test_on_white_noise_two_pieces_win_no_more_often_than_the_level():
    tracks = white_noise_tracks(np.zeros(24), 0.1, 150, np.random.default_rng(0))
    significant, _ = rejected(tracks)
    # 5 % of 150 is 7.5; a true rate of 5 % gives more than 15 once in 300 times.
    assert significant <= stats.binom.ppf(0.997, 150, 0.05)


def test_on_random_walks_two_pieces_win_often_but_no_more_significantly_than_the_level():
    tracks = random_walk_tracks(np.arange(36.0) % 2, 60, np.random.default_rng(0))
    significant, won = rejected(tracks, resamples=39)
    assert won > 48  # AICc alone prefers two pieces in about nine cases of ten
    assert significant <= stats.binom.ppf(0.997, 60, 0.05)


def test_the_short_cut_counts_as_the_full_comparison_does():
    tracks = white_noise_tracks(np.zeros(30), 0.1, 200, np.random.default_rng(1))
    full = advantage(tracks)
    for level in (-5.0, 0.0, 2.0):
        assert share_at_least(tracks, level) == (1 + int((full >= level).sum())) / 201
