"""Surrogates that are fitted only where it matters: the same p, power and null as of fitting all of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from analyses.numerics.pvalues import share_at_least
from analyses.schedule_fit import chance
from analyses.schedule_fit.forms import ONE_PIECE
from analyses.schedule_fit.monotone import SLACK, most_r2
from tests.strategies import seeds

DEPTH = np.arange(24.0)


@given(seeds, st.integers(2, 30))
def test_no_rising_or_falling_curve_explains_more_than_isotonic_regression(seed, layers):
    tracks = np.random.default_rng(seed).standard_normal((4, layers)).cumsum(1)
    for track, bound in zip(tracks, most_r2(tracks), strict=True):
        left = min(np.square(track - isotonic_regression(track, increasing=up).x).sum() for up in (True, False))
        assert bound == pytest.approx(1 + SLACK - left / np.square(track - track.mean()).sum(), abs=1e-12)


@given(seeds, st.sampled_from([0.0, 0.3, 3.0]))
@settings(max_examples=20)
def test_every_one_piece_form_stays_below_its_bound(seed, slope):
    tracks = np.random.default_rng(seed).standard_normal((8, 16)).cumsum(1) + slope * np.arange(16)
    assert (chance.one_piece_r2(tracks) <= most_r2(tracks)).all()
    assert most_r2(np.ones((1, 8)))[0] == 1 + SLACK  # of a flat track nothing is left to explain


def tracks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "law": -0.07 * DEPTH + 0.05 * rng.standard_normal(24),
        "noiseless": -0.1 * DEPTH,
        "walk": rng.standard_normal(24).cumsum(),
        "short": rng.standard_normal(8),
        "bent": np.log(1 + np.arange(24.0) ** 1.5) + 0.2 * rng.standard_normal(24).cumsum(),
    }


@pytest.mark.parametrize("name", tracks())
def test_p_power_and_level_are_those_of_fitting_every_surrogate(name):
    log = tracks()[name]
    line = np.polynomial.Polynomial.fit(np.arange(len(log)), log, 1)(np.arange(len(log)))
    found = []
    for drawn in (
        lambda rng: chance._drawn(log, line, lambda logs: chance.best_r2(logs, ONE_PIECE), rng),
        lambda rng: chance._screened(log, line, rng, True),
    ):
        value, planted, nulls = drawn(np.random.default_rng([1, 3]))
        shares = {kind: share_at_least(null, value) for kind, null in nulls.items()}
        level = max(np.quantile(null, chance.PLENTY) for null in nulls.values())
        found.append((shares, len(nulls["walks"]), (planted > level).mean(), value, level))
    assert found[1][:3] == found[0][:3]
    assert found[1][3:] == pytest.approx(found[0][3:], abs=1e-9)  # a search ends at 1e-10 of the track's square sum


@pytest.mark.parametrize("name", tracks())
def test_p_is_the_same_where_no_power_is_asked_for(name):
    log = tracks()[name]
    line = np.polynomial.Polynomial.fit(np.arange(len(log)), log, 1)(np.arange(len(log)))
    whole, alone = (chance.against_chance(log, line, chance.one_piece_r2, seed=1, power=p) for p in (True, False))
    assert alone == replace(whole, power=None) and whole.power is not None
