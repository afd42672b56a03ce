"""Intervals over depth: known answers, what they contain, and what does not matter."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyses.head_geometry import gained
from analyses.head_geometry.correlation import pearson
from analyses.head_geometry.regression import regress
from analyses.null_residual import scales
from analyses.null_residual.invariant import first_mode_interval
from analyses.numerics import autocorrelation, families, intervals
from analyses.schedule_fit import chance
from tests.strategies import seeds


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def of(track, reduce, **options):
    return intervals.bootstrap(lambda drawn: reduce(track[drawn], axis=1), len(track), seed=0, **options)


# --- known answers ------------------------------------------------------------------------------


def test_statistics_and_levels_of_the_same_units_have_the_intervals_of_each_alone():
    track = rng(1).standard_normal(14).cumsum()
    alone = [of(track, np.median), of(track, np.mean), of(track, np.mean, level=0.98)]
    both = lambda drawn: np.stack([np.median(track[drawn], 1), np.mean(track[drawn], 1)], 1)  # noqa: E731
    found = intervals.bootstraps(both, 14, seed=0, levels=(0.9, 0.9))
    assert np.array(found) == pytest.approx(np.array(alone[:2]), rel=1e-12)
    one = lambda drawn: np.mean(track[drawn], 1)[:, None]  # noqa: E731
    assert intervals.bootstraps(one, 14, seed=0, levels=(0.9, 0.98)) == alone[1:]


def test_sums_over_drawn_units_are_how_often_each_was_drawn_times_its_summand():
    drawn, summands = rng(2).integers(9, size=(50, 9)), rng(3).standard_normal((9, 4))
    assert intervals.times_drawn(drawn) @ summands == pytest.approx(summands[drawn].sum(1), abs=1e-13)


@given(seeds)
def test_medians_of_drawn_units_are_those_of_their_values_one_resample_after_the_other(seed):
    draw = rng(seed)
    values = draw.integers(9, size=(7, draw.integers(1, 4))) / 3.0  # equal ones among them
    values[draw.random(values.shape) < draw.choice([0, 0.3, 1])] = np.nan
    drawn = draw.integers(7, size=(40, 7))
    by_hand = [np.median(known) if len(known := v[~np.isnan(v)]) else np.nan for v in values[drawn].reshape(40, -1)]
    assert np.array_equal(intervals.medians(values, drawn), by_hand, equal_nan=True)


@pytest.mark.parametrize("trend", [False, True])
@pytest.mark.parametrize("phi", [0.0, 0.6, 0.9])
def test_variance_and_expected_residuals_under_persistent_noise_are_those_of_simulated_tracks(trend, phi):
    n, count = 15, 40_000
    tracks = autocorrelation.noise(phi, (count, n), rng(1))
    table = autocorrelation.precision(n, trend=trend)
    i = int(np.abs(autocorrelation.GRID - phi).argmin())
    assert autocorrelation.GRID[i] == pytest.approx(phi, abs=1e-12)
    depth = np.arange(n) - 7.0
    estimates = tracks @ depth / (depth @ depth) if trend else tracks.mean(1)
    residuals = tracks @ table.residual
    squares = np.square(residuals).sum(1)
    # Shares of variances: a sampling error of √(2/40000) = 0.7 %; persistence makes the squares vary more: four errors.
    assert np.square(estimates).mean() / squares.mean() == pytest.approx(table.variance[i], rel=0.04)
    expected = (residuals[:, 1:] * residuals[:, :-1]).sum() / squares.sum()
    assert expected == pytest.approx(table.lag_one[i], abs=0.01)
    # Satterthwaite: a multiple of χ² with these degrees of freedom has that mean and that variance.
    assert 2 * squares.mean() ** 2 / squares.var() == pytest.approx(table.freedom[i], rel=0.05)


def test_without_persistence_slope_and_mean_have_students_interval():
    n, level = 20, 0.9
    y = rng(3).standard_normal(n) + 0.1 * np.arange(n)
    line = stats.linregress(np.arange(n), y)
    half = stats.t.ppf(0.95, n - 2) * line.stderr
    residual = y - line.intercept - line.slope * np.arange(n)
    reach = autocorrelation.reach(0.0, n, trend=True, level=level) * np.linalg.norm(residual)
    assert reach == pytest.approx(half, rel=1e-12)
    # Of the mean about a parabola: s²/n, s² with three degrees of freedom fewer than layers.
    residual = y - np.polynomial.Polynomial.fit(np.arange(n), y, 2)(np.arange(n))
    reach = autocorrelation.reach(0.0, n, trend=False, level=level) * np.linalg.norm(residual)
    assert reach == pytest.approx(stats.t.ppf(0.95, n - 3) * math.sqrt(residual @ residual / (n - 3) / n), rel=1e-12)


def test_of_exchangeable_units_the_bootstrap_of_a_mean_is_students_interval():
    y = rng(4).standard_normal(40)
    low, high = of(y, np.mean, exchangeable=True, resamples=200_000)
    half = stats.t.ppf(0.95, 39) * stats.sem(y)
    assert (low, high) == pytest.approx((y.mean() - half, y.mean() + half), abs=0.03 * half)  # skewness of y and draws


def test_a_slope_is_scipys_slope():
    y = rng(5).standard_normal(17)
    value, (low, high) = intervals.slope(y)
    assert value == pytest.approx(stats.linregress(np.arange(17), y).slope, abs=1e-14)
    assert high - value == pytest.approx(value - low, rel=1e-12)


def test_spearman_is_scipys():
    y = rng(6).standard_normal(25)
    rho, (low, high) = intervals.spearman(np.arange(25), y)
    assert rho == pytest.approx(stats.spearmanr(np.arange(25), y).statistic, abs=1e-14)
    assert -1 <= low < rho < high <= 1


def test_a_jackknife_of_a_mean_is_its_standard_error():
    y = rng(7).standard_normal(9)
    left_out = [np.delete(y, i).mean() for i in range(9)]
    assert intervals.jackknife_error(left_out) == pytest.approx(stats.sem(y), rel=1e-12)


def test_depth_and_prompts_add_in_squares_end_by_end():
    # Two groups at ±s about their mean have a jackknife error of s; t with one degree of freedom is tan(0.45π).
    s, t = 0.1, math.tan(0.45 * math.pi)
    low, high = intervals.with_prompts(2.0, (1.0, 2.5), [2.0 - s, 2.0 + s])
    assert (low, high) == pytest.approx((2 - math.hypot(1, t * s), 2 + math.hypot(0.5, t * s)), rel=1e-12)
    assert intervals.with_prompts(2.0, (1.0, 2.5), [2.0, 2.0]) == pytest.approx((1.0, 2.5), abs=1e-15)


# --- invariants ---------------------------------------------------------------------------------


@given(seeds, st.integers(5, 30), st.sampled_from([0.0, 0.8, 1.0]))
def test_every_interval_contains_its_estimate(seed, n, phi):
    y = autocorrelation.noise(phi, (n,), rng(seed))
    for reduce in (np.mean, np.median, np.max):  # the largest value is biased under resampling, never above itself
        low, high = of(y, reduce, resamples=200)
        assert low <= reduce(y) <= high
    for value, (low, high) in (intervals.spearman(np.arange(n), y), intervals.slope(y)):
        assert low <= value <= high


@given(seeds, st.integers(5, 30), st.sampled_from([0.0, 0.8, 1.0]), st.floats(0.5, 0.999))
def test_so_does_every_interval_that_is_made_of_others(seed, n, phi, level):
    """Joined with a text, of a law's R², of the worst of families, at every level."""
    draw = rng(seed)
    y = autocorrelation.noise(phi, (n,), draw)
    left_out = y + 0.1 * draw.standard_normal((4, n))
    rho, interval = intervals.spearman_of_text(y, left_out)
    assert -1 <= interval[0] <= rho <= interval[1] <= 1
    value = float(np.tanh(y.mean()))
    over_depth = max(-1.0, value - draw.random()), min(1.0, value + draw.random())
    low, high = intervals.with_prompts(value, over_depth, left_out.mean(1), level=level, within=(-1, 1))
    assert -1 <= low <= value <= high <= 1
    line = np.polynomial.Polynomial.fit(np.arange(n), y, 1)(np.arange(n))
    low, high = chance.r2_intervals(y, line, chance.EXPONENTIAL_LAW, seed=0, levels=(level,))[0]
    assert 0 <= low <= chance.best_r2(y[None], chance.EXPONENTIAL_LAW)[0] <= high <= 1
    low, high = intervals.bootstrap(
        lambda drawn: np.median(y[drawn], axis=1), n, seed=0, resamples=50, track=y, level=level
    )
    assert low <= np.median(y) <= high
    found = families.worst_of({"a": y, "b": -y}, worst="largest", seed=0, method="", absent="")
    assert found.interval[0] <= found.value <= found.interval[1]


@given(seeds, st.integers(8, 12))  # of fewer, a resample may hold one layer alone, which has no mode
def test_so_do_those_of_heads_and_of_scales(seed, layers):
    rounding = 1e-9  # of artanh and tanh near 1, and of a singular value decomposition made twice
    draw = rng(seed)
    x, y = draw.standard_normal((2, layers, 4)) + autocorrelation.noise(0.8, (2, layers), draw)[..., None]
    parts = pearson(x, y)
    for part in ("pooled", "within"):
        low, high = gained.r_interval(x, y, part, 1.0, 0)
        assert -1 <= low <= parts[part] + rounding and parts[part] - rounding <= high <= 1
    found = regress(("a",), x.reshape(-1, 1), y.ravel(), np.repeat(np.arange(layers), 4), seed=0)
    low, high = found.r2_out_of_sample_interval
    assert low <= found.r2_out_of_sample <= high
    tracks = autocorrelation.noise(0.8, (3, layers), draw)
    low, high = first_mode_interval(tracks, seed=0)
    assert 0 <= low <= scales.shares(tracks, True)[0] + rounding and scales.shares(tracks, True)[0] <= high + rounding


@given(seeds, st.integers(-20, 20), st.integers(-(2**20), 2**20))
def test_unit_and_origin_of_a_track_do_not_matter(seed, power, origin):
    # On a grid of 2⁻²⁰, changed by a power of two and that many steps of 1, each value, sum and mean of 16 is exact.
    y = np.round(autocorrelation.noise(0.5, (16,), rng(seed)) * 2**20) / 2**20
    one, other = of(y, np.mean, resamples=200), of(np.ldexp(y + origin, power), np.mean, resamples=200)
    found = np.ldexp(np.array(other), -power) - origin
    # What is not: both ends, laid off from the estimate, and quantiles between two resamples, of the origin's size.
    assert found == pytest.approx(one, abs=8 * np.finfo(float).eps * (1 + abs(origin)))


def test_a_persistent_track_has_a_wider_interval_than_the_same_values_in_random_order():
    y = autocorrelation.noise(0.9, (32,), rng(8))
    wide, narrow = of(y, np.median), of(rng(9).permutation(y), np.median)
    assert np.diff(wide) > 1.5 * np.diff(narrow)
    assert np.diff(of(y, np.median, exchangeable=True)) == pytest.approx(
        np.diff(of(rng(9).permutation(y), np.median, exchangeable=True)), rel=0.1
    )  # without an order the order says nothing; 2000 resamples


@pytest.mark.parametrize("n", [24, 48, 96])
def test_persistence_is_estimated_up_to_a_bias_of_the_order_of_one_over_n_a_third_of_the_raw_ones(n):
    tracks = autocorrelation.noise(0.5, (20_000, n), rng(10))
    raw = autocorrelation.lag_one(tracks - tracks.mean(1, keepdims=True)).mean()
    found = np.median(autocorrelation.estimate(tracks, trend=True, raised=0))
    # About a mean the raw one lies (1 + 4φ)/n too low (Marriott & Pope 1954). Turning its expectation round leaves
    # what a ratio differs by from the ratio of expectations, and a skewed estimate's median from its mean: 1/n at most.
    assert raw - 0.5 == pytest.approx(-3 / n, rel=0.25)  # and terms of 1/n²
    assert abs(found - 0.5) < 1 / n


def test_a_higher_level_is_wider_and_a_range_is_kept():
    y = np.abs(autocorrelation.noise(0.5, (12,), rng(11)))
    (low, high), (lower, higher) = (of(y, np.median, level=level) for level in (0.9, 0.99))
    assert lower < low < high < higher
    assert of(y, np.median, level=0.99, within=(0.0, 1.0))[0] >= 0


# --- what has none ------------------------------------------------------------------------------


def test_too_few_units_or_a_resample_without_a_value_have_no_interval():
    assert of(np.arange(3.0), np.mean) is None
    assert of(np.arange(2.0), np.mean, exchangeable=True) is not None
    assert of(np.array([1.0, np.nan, 2.0, 3.0]), np.mean) is None
    assert intervals.spearman(np.arange(4), np.array([1.0, 3, 2, 4]))[1] is None
    assert intervals.spearman(np.arange(4), np.ones(4)) == (None, None)
    assert intervals.slope(np.arange(4.0)) == (1.0, None)
    with pytest.raises(ValueError, match="two groups"):
        intervals.jackknife_error([1.0])


def test_a_constant_track_has_an_interval_of_no_width_and_an_exact_line_one_of_its_slope():
    assert of(np.full(8, 0.25), np.median) == (0.25, 0.25)
    value, (low, high) = intervals.slope(0.5 * np.arange(8))
    assert (value, low, high) == pytest.approx((0.5, 0.5, 0.5), abs=1e-14)
