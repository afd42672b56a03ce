"""What controls plant has the size that they state, and what they demand to be seen can be seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.numerics.autocorrelation import noise
from checks.calibration.plants import common_writes, seen_schedules, spectrum
from checks.claims.gate import POWER
from checks.controls.surrogates import COOLING, LIMIT, MARGIN, planted
from tests.strategies import seeds


@given(seeds, st.integers(5, 48), st.sampled_from([0.0, 0.8, 1.0]), st.floats(1e-3, 10))
def test_of_a_planted_schedule_the_law_explains_as_much_as_is_stated_however_the_model_wanders(seed, n, phi, size):
    rng = np.random.default_rng(seed)
    track = np.exp(size * noise(phi, (n,), rng))
    logs, depth = np.log(planted(track, rng)), np.arange(n)
    slope, intercept = np.polyfit(depth, logs, 1)
    left = logs - slope * depth - intercept
    assert slope == pytest.approx(np.log(COOLING), abs=1e-9)  # float64, logarithms of up to e^±30
    assert 1 - left.var() / logs.var() == pytest.approx(LIMIT + MARGIN, abs=1e-9)


def test_the_margin_of_planted_schedules_is_what_the_interval_of_r2_needs():
    assert seen_schedules(24, 0.8, LIMIT + MARGIN, trials=20, seed=1) >= POWER
    assert seen_schedules(24, 0.8, LIMIT + MARGIN / 2, trials=20, seed=1) < POWER


def test_a_spectrum_has_the_participation_ratio_that_was_asked_for():
    for r in (2, 8, 64):
        assert 1 / np.square(spectrum(r)).sum() == pytest.approx(r, rel=1e-9) and spectrum(r).sum() == pytest.approx(1)


def test_one_common_direction_fails_both_numbers_of_ds3_and_eight_fail_the_covariances():
    statuses = {rank: [status for _, status in common_writes(16, rank, seed=1).values()] for rank in (0, 1, 8)}
    assert statuses[0] == ["pass", "pass"] and statuses[1] == ["fail", "fail"]
    assert statuses[8][0] != "fail" and statuses[8][1] == "fail"


def test_eight_directions_of_the_weights_size_are_nothing_where_a_layer_answers_more_strongly_to_what_it_reads():
    assert [status for _, status in common_writes(16, 8, response=3.0, seed=1).values()] == ["pass", "pass"]
