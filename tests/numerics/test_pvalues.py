"""Shares of a null, sequential tests, adjusted p-values, surrogates and permutations."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.numerics import autocorrelation, permutations, surrogates
from analyses.numerics.pvalues import benjamini_hochberg, holm, power, sequential, share_at_least
from tests.strategies import seeds


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_observed_value_counts_as_one_of_the_null_and_ties_and_nans_count_as_large():
    assert share_at_least(np.array([1.0, 2.0, 3.0, 4.0]), 3.0) == 3 / 5
    assert share_at_least(np.array([0.1 + 0.2]), 0.3) == 1.0
    assert share_at_least(np.array([np.nan, 0.0]), 1.0) == 2 / 3
    assert share_at_least(np.array([]), 1.0) == 1.0


def test_a_sequential_test_stops_at_five_exceedances_and_runs_to_its_limit_without():
    assert (found := sequential(lambda i: 1.0, 0.5, limit=99)).p == 1.0 and found.draws == 5
    assert (found := sequential(lambda i: 0.0, 0.5, limit=19)).p == 1 / 20 and found.draws == 19
    # The tenth draw of every other one above is the fifth exceedance.
    assert (found := sequential(lambda i: float(i % 2), 1.0, limit=99)).p == 0.5 and found.draws == 10


def test_draws_without_a_value_count_for_nothing_and_are_counted():
    found = sequential(lambda i: None if i % 2 else 0.0, 1.0, limit=9, attempts=100)
    assert (found.p, found.draws, found.undefined) == (0.1, 9, 8)
    with pytest.raises(ValueError, match="no draw"):
        sequential(lambda i: None, 1.0, limit=9)


def test_a_sequential_p_is_at_most_alpha_with_probability_alpha():
    generator = rng(0)
    p = np.array([sequential(lambda i: generator.random(), generator.random(), limit=39).p for _ in range(4000)])
    for alpha in (0.05, 0.1, 0.5):
        assert (p <= alpha).mean() <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / 4000)  # four standard errors
    assert (p <= 0.05).mean() >= 0.03  # 2/40 = 0.05 is reached: the test is not merely conservative


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_are_those_of_their_definitions(p):
    order = sorted(range(len(p)), key=p.__getitem__)
    m = len(p)
    step_down = [max(min(1, (m - j) * p[order[j]]) for j in range(i + 1)) for i in range(m)]
    step_up = [min(min(1, m * p[order[j]] / (j + 1)) for j in range(i, m)) for i in range(m)]
    for found, expected in ((holm(p), step_down), (benjamini_hochberg(p), step_up)):
        assert [found[k] for k in order] == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert all(b <= h + 1e-12 for b, h in zip(benjamini_hochberg(p), holm(p), strict=True))


def test_power_is_the_share_of_trials_at_or_below_the_level():
    assert power(lambda trial: [0.05, 0.2, 0.01, 1.0][trial], 4) == 0.5


# --- surrogates ---------------------------------------------------------------------------------


@given(seeds, st.integers(3, 12))
def test_walks_keep_step_sizes_and_orders_keep_values(seed, n):
    track = rng(seed).standard_normal(n)
    found = surrogates.walks(track, 5, rng(seed))
    assert found[:, 0] == pytest.approx(track[0], abs=0)
    sizes = np.sort(np.abs(np.diff(track)))
    assert np.sort(np.abs(np.diff(found)), axis=1) == pytest.approx(np.tile(sizes, (5, 1)), abs=1e-12)
    found = surrogates.orders(track, 5, rng(seed))
    assert np.sort(found, axis=1) == pytest.approx(np.tile(np.sort(track), (5, 1)), abs=0)


def test_autoregressions_have_the_persistence_mean_and_spread_of_their_track():
    track = 3 + 2 * autocorrelation.noise(0.7, (400,), rng(1))
    found = surrogates.autoregressions(track, 2000, rng(2))
    wanted = float(autocorrelation.estimate(track, trend=True, raised=0))
    centred = found - track.mean()
    assert (centred[:, 1:] * centred[:, :-1]).mean() / np.square(centred).mean() == pytest.approx(wanted, abs=0.01)
    assert found.mean() == pytest.approx(track.mean(), abs=0.02)
    assert found.std() == pytest.approx(track.std(), rel=0.01)


def test_surrogates_about_a_curve_have_its_residuals_square_sum_once_a_line_is_taken_off():
    residual = autocorrelation.noise(0.6, (30,), rng(3)) @ autocorrelation.precision(30, trend=True).residual
    found = (
        surrogates.about(np.arange(30.0), residual, 20_000, rng(4)) @ autocorrelation.precision(30, trend=True).residual
    )
    assert np.square(found).sum(1).mean() == pytest.approx(np.square(residual).sum(), rel=0.02)  # four errors


# --- permutations -------------------------------------------------------------------------------


def test_groups_move_as_wholes_and_all_arrangements_that_keep_them_are_equally_likely():
    found = permutations.group_permutations(4, 2, 1, 40_000, rng(5))[:, 0]
    allowed = {
        (*block[0], *block[1])
        for blocks in itertools.permutations([(0, 1), (2, 3)])
        for block in itertools.product(*(itertools.permutations(b) for b in blocks))
    }
    seen, counts = np.unique(found, axis=0, return_counts=True)
    assert {tuple(row) for row in seen.tolist()} == allowed  # 2!·2!·2! = 8 of 24
    assert counts / 40_000 == pytest.approx(1 / 8, abs=4 * np.sqrt(1 / 8 * 7 / 8 / 40_000))
    with pytest.raises(ValueError, match="equal groups"):
        permutations.group_permutations(8, 3, 1, 1, rng(0))


@pytest.mark.parametrize(("heads", "groups"), [(6, 3), (4, 2), (6, 2), (3, 3)])
def test_groups_and_heads_are_put_in_the_order_of_their_random_keys(heads, groups):
    keys, size = rng(4), heads // groups
    blocks, inside = keys.random((20, 5, groups)).argsort(-1), keys.random((20, 5, groups, size)).argsort(-1)
    found = permutations.group_permutations(heads, groups, 5, 20, rng(4))
    assert (found == (blocks[..., None] * size + inside).reshape(20, 5, heads)).all()
    values = rng(5).standard_normal((5, heads))
    assert (permutations.rearranged(values, found)[7, 2] == values[2, found[7, 2]]).all()


def test_detrending_removes_the_line_of_layer_means_and_nothing_within_layers():
    x = rng(6).standard_normal((9, 4))
    x[3, 1] = np.nan
    x[5] = np.nan
    found = permutations.detrended(x + 0.7 * np.arange(9)[:, None])
    assert found == pytest.approx(permutations.detrended(x), abs=1e-12, nan_ok=True)
    means = np.array([np.nanmean(row) for row in np.delete(found, 5, axis=0)])
    depth = np.delete(np.arange(9.0), 5)
    assert (means.sum(), depth @ means) == pytest.approx((0, 0), abs=1e-12)
    inside = x - np.nanmean(x[np.arange(9) != 5], axis=None)
    assert np.diff(found, axis=1) == pytest.approx(np.diff(inside, axis=1), abs=1e-12, nan_ok=True)
