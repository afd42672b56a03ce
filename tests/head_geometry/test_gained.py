"""Association of the gained spectra: nulls of the right size, planted associations seen, metrics of a record."""

import numpy as np
import pytest
from hypothesis import given

from analyses import head_geometry
from analyses.head_geometry import gained
from analyses.head_geometry.correlation import pearson
from analyses.numerics.pvalues import power
from tests.head_geometry.test_head_geometry import attention
from tests.strategies import seeds


def grouped(seed: int, *, layers: int, heads: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Two unrelated (layer, head) variables, each alike in a key/value group (intraclass correlation 0.5)."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.standard_normal((2, layers, groups)), heads // groups, axis=-1)
    return tuple(shared + rng.standard_normal((2, layers, heads)))


def trends(seed: int, *, layers: int = 24, heads: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    slopes = rng.choice([-1, 1], (2, 1, 1)) * 0.2
    return tuple(
        slopes * np.arange(layers)[:, None]
        + rng.standard_normal((2, layers, 1))
        + rng.standard_normal((2, layers, heads))
    )


@given(seeds)
def test_r_within_layers_is_that_of_the_decomposition(seed):
    x, y = grouped(seed, layers=5, heads=6, groups=2)
    assert gained._within(x[None], y[None])[0] == pytest.approx(pearson(x, y)["within"], abs=1e-12)


@pytest.mark.parametrize(("heads", "groups"), [(8, 4), (14, 2)])
def test_unrelated_heads_of_common_groups_are_called_related_as_seldom_as_promised(heads, groups):
    def size(moved: int) -> float:
        return power(
            lambda trial: gained.within_test(
                *grouped(trial, layers=12, heads=heads, groups=groups), groups=moved, seed=trial, draws=99
            ),
            200,
        )

    assert size(groups) <= 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 200)  # binomial error of 200 trials
    assert size(heads) > size(groups)  # heads moved freely: 13 % and 47 % are reported


def test_two_unrelated_trends_are_called_related_as_seldom_as_promised():
    p = [gained.drift_test([x], y, groups=8, seed=i, draws=99) for i, (x, y) in enumerate(map(trends, range(200)))]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 200)  # binomial error of 200 trials


def test_the_largest_correlation_is_numpys_over_the_heads_that_both_know():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 6, 4)), rng.standard_normal((5, 6, 4))
    x[:, 2, 1], y[3, 4, 2] = np.nan, np.nan
    found = gained._largest(x, y)
    for draw in range(5):
        known = np.isfinite(x[0]) & np.isfinite(y[draw])
        r = [abs(np.corrcoef(v[known], y[draw][known])[0, 1]) for v in x]
        assert found[draw] == pytest.approx(max(r), rel=1e-12)


def test_surrogates_keep_persistence_and_within_layer_values():
    """Against itself a variable is the largest of all; p is the least that so many draws can give."""
    x, _ = trends(1)
    assert gained.drift_test([x], x, groups=8, seed=0) == 1 / (1 + gained.DRAWS)


def test_a_variable_that_is_its_trend_alone_has_nothing_left_to_relate():
    x, y = trends(0)
    assert gained.drift_test([np.tile(np.arange(24.0)[:, None], 8)], y, groups=8, seed=0) == 1.0


def test_a_planted_association_of_the_gained_spectra_is_seen_and_noise_has_its_power_beside_it():
    record = head_geometry.measure(attention(), seed=0)
    assert set(gained.NAMES) <= set(record.metrics)
    found = {name: record.metrics[name] for name in gained.NAMES}
    assert found["gained_best_abs_r"].value == record.tables["gained"]["entropy"].best_abs_r
    for name in ("gained_best_abs_r", "gained_within_r"):
        low, high = found[name].interval
        assert -1 <= low <= found[name].value <= high <= 1
    assert found["gained_best_drift_p"].n["groups"] == record.num_heads  # the record tells no groups
    assert 0.8 <= found["gained_best_power"].value <= 1
