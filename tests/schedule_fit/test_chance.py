"""Laws over depth against chance: planted laws are seen, walks are not, and R² is that of the closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyses.numerics import autocorrelation
from analyses.schedule_fit import chance
from analyses.schedule_fit.forms import ONE_PIECE
from tests.strategies import seeds

DEPTH = np.arange(24.0)


def law(*, rate: float = -0.07, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    return np.exp(rate * DEPTH + noise * np.random.default_rng(seed).standard_normal(24))


def walk(seed: int) -> np.ndarray:
    return np.exp(0.1 * np.random.default_rng(seed).standard_normal(24).cumsum())


@given(seeds)
def test_the_exponential_laws_r2_and_the_fall_are_scipys(seed):
    tracks = np.random.default_rng(seed).standard_normal((3, 24))
    r = [stats.pearsonr(DEPTH, track).statistic for track in tracks]
    assert chance.best_r2(tracks, chance.EXPONENTIAL_LAW) == pytest.approx(np.square(r), abs=1e-12)
    rho = [stats.spearmanr(DEPTH, track).statistic for track in tracks]
    assert chance.fall(tracks) == pytest.approx(-np.array(rho), abs=1e-12)


def test_a_noiseless_exponential_is_no_generic_drift():
    found = chance.exponential((0.9**DEPTH).tolist(), seed=0, missing="")
    assert found["r2"].value == pytest.approx(1, abs=1e-12)
    assert found["walk_p"].value == 1 / (1 + chance.DRAWS)
    assert found["rate"].value == pytest.approx(np.log(0.9), abs=1e-12)


def test_a_planted_law_is_seen_with_its_rate_and_its_power():
    found = chance.exponential(law().tolist(), seed=0, missing="")
    assert found["walk_p"].value <= 0.05 and found["power"].value >= 0.8
    low, high = found["rate"].interval
    assert low < -0.07 < high < 0


def test_walks_pass_for_a_law_about_as_often_as_promised():
    p = [chance.exponential(walk(seed).tolist(), seed=seed, missing="")["walk_p"].value for seed in range(100)]
    assert np.mean(np.array(p) <= 0.05) <= 0.12  # binomial(100, 0.05) exceeds 12 once in 700
    assert np.median(p) > 0.3


def test_the_worst_of_several_tracks_is_told_and_every_one_kept():
    found = chance.one_piece({"gate": law().tolist(), "qk": walk(3).tolist()}, seed=0, absent="none")
    assert found["r2"].where == "qk" and set(found["r2"].members) == {"gate", "qk"}
    assert found["walk_p"].where == "qk" and found["walk_p"].members["gate"].value <= 0.05
    assert found["r2"].interval[0] <= found["r2"].value <= found["r2"].interval[1]
    assert found["r2"].n == {"layers": 24}


def test_a_track_that_cannot_be_fitted_leaves_a_reason_and_no_track_no_question():
    found = chance.one_piece({"gate": law().tolist(), "qk": [1.0] * 24}, seed=0, absent="none")
    assert found["r2"].value is None and "constant" in found["r2"].reason
    assert not chance.one_piece({}, seed=0, absent="none")["r2"].applies
    assert not chance.exponential(None, seed=0, missing="no text")["r2"].applies


@given(seeds, st.sampled_from([0.0, 0.8, 1.0]))
def test_an_interval_of_r2_contains_its_estimate_and_stays_between_0_and_1(seed, phi):
    log = autocorrelation.noise(phi, (16,), np.random.default_rng(seed))
    curve = np.polynomial.Polynomial.fit(np.arange(16), log, 1)(np.arange(16))
    low, high = chance.r2_interval(log, curve, chance.EXPONENTIAL_LAW, seed=0)
    assert 0 <= low <= chance.best_r2(log[None], chance.EXPONENTIAL_LAW)[0] <= high <= 1
    assert chance.best_r2(log[None], ONE_PIECE)[0] >= -1e-12
