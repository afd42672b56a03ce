"""Correlations split by depth, and what chance gives."""

import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from analyses.head_geometry.correlation import (
    by_layer,
    cluster_intervals,
    p_value,
    pearson,
    permutation_null,
    shift_null,
    spearman,
)
from analyses.numerics.permutations import arrangements
from analyses.numerics.pvalues import holm
from tests.strategies import seeds


def table(seed, *, layers=6, heads=5, gaps=0):
    """Two unrelated (layer, head) variables whose layer means drift, with shared gaps."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, layers, heads)) + rng.normal(size=(2, layers, 1)).cumsum(1)
    missing = rng.choice(layers * heads, gaps, replace=False)
    x.flat[missing] = y.flat[missing] = np.nan
    return x, y


def planted(slope, *, layers=30, heads=8, between=0.0, noise=1.0, seed=0):
    """y = slope·(x − its layer mean) + between·(layer mean of x) + noise; and the true within-layer r."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=(layers, 1)).cumsum(0)
    inside = rng.normal(size=(layers, heads))
    y = slope * inside + between * level + noise * rng.normal(size=(layers, heads))
    return level + inside, y, slope / math.hypot(slope, noise)


def test_a_small_table_by_hand():
    # Layers (1, 3) and (5, 7) against (2, 1) and (5, 4): inside each layer they run against one another, r = −1;
    # layer means 2, 6 and 1.5, 4.5 run together, r = 1. Pooled: Σxy = 10 about the mean 4 and 3, Σx² = 20, Σy² = 10.
    x, y = np.array([[1.0, 3.0], [5.0, 7.0]]), np.array([[2.0, 1.0], [5.0, 4.0]])
    found = pearson(x, y)
    assert found["within"] == pytest.approx(-1, rel=1e-14)
    assert found["between"] == pytest.approx(1, rel=1e-14)
    assert found["pooled"] == pytest.approx(10 / math.sqrt(20 * 10), rel=1e-14)
    assert found["x_between"] == pytest.approx(16 / 20, rel=1e-14)
    assert found["y_between"] == pytest.approx(9 / 10, rel=1e-14)
    assert by_layer(x, y) == pytest.approx([-1, -1], rel=1e-14)


@given(seeds, st.integers(0, 4))
def test_pooled_r_is_the_sum_of_its_parts(seed, gaps):
    found = pearson(*table(seed, gaps=gaps))
    inside = math.sqrt((1 - found["x_between"]) * (1 - found["y_between"]))
    outside = math.sqrt(found["x_between"] * found["y_between"])
    parts = found["within"] * inside + found["between"] * outside
    assert found["pooled"] == pytest.approx(parts, abs=1e-13)  # 30 heads, rounding


@given(seeds, st.integers(0, 4))
def test_pearson_and_spearman_agree_with_scipy(seed, gaps):
    x, y = table(seed, gaps=gaps)
    known = np.isfinite(x)
    assert pearson(x, y)["pooled"] == pytest.approx(stats.pearsonr(x[known], y[known]).statistic, abs=1e-13)
    assert spearman(x, y)["pooled"] == pytest.approx(stats.spearmanr(x[known], y[known]).statistic, abs=1e-13)
    means = np.nanmean(x, 1), np.nanmean(y, 1)
    assert spearman(x, y)["between"] == pytest.approx(stats.spearmanr(*means).statistic, abs=1e-13)
    if not gaps:
        assert pearson(x, y)["between"] == pytest.approx(stats.pearsonr(*means).statistic, abs=1e-12)
        own = [stats.pearsonr(a, b).statistic for a, b in zip(x, y, strict=True)]
        assert by_layer(x, y) == pytest.approx(own, abs=1e-12)


@given(seeds, st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_unit_and_origin_of_a_variable_do_not_matter(seed, scale, shift):
    x, y = table(seed)
    one, other = pearson(x, y), pearson(scale * x + shift, y)
    # 1e-16·(shift/scale) of rounding, at most 1e-7 deviations, enters r to first order.
    assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-6)
    assert spearman(x, y) == pytest.approx(spearman(8 * x, y), abs=1e-14)  # a power of two keeps every tie


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_planted_association_inside_layers_is_recovered_with_its_sign(sign):
    x, y, truth = planted(sign * 0.7)
    found = pearson(x, y)["within"]
    assert abs(found - truth) < 3 / math.sqrt(30 * 7)  # three standard errors, L(H−1) degrees of freedom
    low, high = cluster_intervals(x, y, seed=0)["within"]
    assert low < found < high and (low > 0) == (high > 0) == (sign > 0)
    assert p_value(found, permutation_null([x], y, seed=0)) == 0.001


def test_drift_can_turn_the_sign_that_every_layer_has():
    x, y, truth = planted(-1.0, between=2.0, noise=0.2)
    found = pearson(x, y)
    assert found["pooled"] > 0.5
    assert found["within"] == pytest.approx(truth, abs=0.05)
    assert all(r < 0 for r in by_layer(x, y))


def test_a_layer_without_spread_has_no_r_and_one_head_a_layer_no_within_part():
    x, y = table(0)
    x[2] = 4.0
    own = by_layer(x, y)
    assert own[2] is None and None not in own[:2] + own[3:]
    single = pearson(x[:, :1], y[:, :1])
    assert single["within"] is None
    assert single["between"] == pytest.approx(single["pooled"], rel=1e-12)


@pytest.mark.parametrize("layers", [4, 7, 12])
def test_arrangements_are_all_shifts_and_reversed_shifts_but_the_identity(layers):
    found = arrangements(layers)
    assert len(found) == 2 * layers - 1
    assert np.all(np.sort(found, axis=1) == np.arange(layers))
    steps = np.diff(found, axis=1) % layers
    assert np.all((steps == 1) | (steps == layers - 1))  # neighbours stay neighbours on the circle
    assert np.all(steps == steps[:, :1])
    assert not np.any(np.all(found == np.arange(layers), axis=1))


@given(seeds, st.integers(0, 4))
def test_the_shift_null_agrees_with_rearranging_the_layers_by_hand(seed, gaps):
    x, y = table(seed, gaps=gaps)
    shared = [
        np.where(np.isfinite(x[order]) & np.isfinite(y), v, np.nan) for order in arrangements(6) for v in (x[order], y)
    ]
    by_hand = [
        stats.pearsonr(a[np.isfinite(a)], b[np.isfinite(b)]).statistic
        for a, b in zip(shared[::2], shared[1::2], strict=True)
    ]
    assert shift_null(x, y) == pytest.approx(by_hand, abs=1e-12)


@given(seeds, st.integers(0, 4))
def test_permuted_heads_stay_in_their_layer_and_gaps_stay_gaps(seed, gaps):
    x, y = table(seed, gaps=gaps)
    level = 100 * np.arange(6.0)[:, None]
    still = permutation_null([x, y], y, seed=0, count=20)
    assert np.all(np.abs(still) <= 1 + 1e-12)
    for moved in (
        permutation_null([x, y], y + level, seed=0, count=20),
        permutation_null([x + level, y], y, seed=0, count=20),
    ):
        assert np.allclose(moved, still, rtol=0, atol=1e-9)  # layer levels do not enter, as they would if heads moved


def test_permuting_two_heads_gives_the_r_or_its_opposite():
    x, y = np.array([[0.0, 1.0]]), np.array([[3.0, 5.0]])
    assert set(np.round(permutation_null([x], y, seed=0, count=40)[:, 0], 12)) == {-1.0, 1.0}


def test_the_within_permutation_p_is_uniform_without_an_association():
    p = []
    for seed in range(200):
        x, y = table(seed, layers=6, heads=6)
        p.append(p_value(pearson(x, y)["within"], permutation_null([x], y, seed=seed, count=99)))
    assert stats.kstest(p, "uniform").pvalue > 0.001  # the seed is fixed; wrong calibration fails far below


def drifting(seed, *, layers=24, heads=4, memory=0.8):
    """Two unrelated variables whose layer means drift (autoregressive, stationary), ten times the spread of heads."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(2, layers + 40))
    level = np.array([[np.dot(memory ** np.arange(40), row[k + 40 : k : -1]) for k in range(layers)] for row in steps])
    return level[..., None] + 0.1 * rng.normal(size=(2, layers, heads))


def test_unrelated_drifting_tracks_pass_the_shift_null_at_its_level_and_free_permutation_mostly():
    rng = np.random.default_rng(0)
    shift = free = 0
    for seed in range(200):
        x, y = drifting(seed)
        r = pearson(x, y)["pooled"]
        shift += p_value(r, shift_null(x, y)) <= 0.05
        shuffled = y.ravel()[rng.random((59, y.size)).argsort(1)]
        free += p_value(r, (shuffled - y.mean()) @ (x - x.mean()).ravel() / (x.size * x.std() * y.std())) <= 0.05
    # p ≤ 0.05 is 2 of 48 arrangements, a rate of 4 %; the bound is exceeded at 5 % once in 300 times.
    assert shift <= stats.binom.ppf(0.997, 200, 0.05), f"{shift} of 200"
    assert free >= 100, f"{free} of 200"


def test_unrelated_random_walks_pass_the_shift_null_about_once_in_six():
    # Their ends do not meet, so a cyclic shift breaks what the walk itself does not: the limit that the record names.
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(300, 2, 24, 1)).cumsum(2) + 0.3 * rng.normal(size=(300, 2, 24, 4))
    passed = sum(p_value(pearson(x, y)["pooled"], shift_null(x, y)) <= 0.05 for x, y in walks)
    assert abs(passed / 300 - 1 / 6) < 3 * math.sqrt(1 / 6 * 5 / 6 / 300)  # binomial error


def test_two_unrelated_trends_pass_the_shift_null_which_only_their_reversal_matches():
    # The limit of this null: of 2L arrangements of two rising tracks just two have a large |r|.
    rng = np.random.default_rng(0)
    x, y = np.arange(24.0)[:, None] + rng.normal(size=(2, 24, 4))
    assert p_value(pearson(x, y)["pooled"], shift_null(x, y)) <= 2 / 48
    assert p_value(pearson(x, y)["within"], permutation_null([x], y, seed=0)) > 0.05


def test_a_p_value_counts_the_observed_arrangement():
    assert p_value(0.5, np.array([0.1, -0.6, 0.5, 0.2])) == 3 / 5
    assert p_value(-0.9, np.array([0.1, 0.2])) == 1 / 3


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=7))
def test_holm_only_raises_p_values_and_keeps_their_order(p):
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True)) and max(adjusted) <= 1
    assert min(adjusted) == pytest.approx(min(1, len(p) * min(p)))
    pairs = sorted(zip(p, adjusted, strict=True))
    assert all(one[1] <= other[1] for one, other in pairwise(pairs))
