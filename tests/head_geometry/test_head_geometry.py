"""Spectra against attention: descriptors, regression, and the record that claims read."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from analyses import head_geometry
from analyses.head_geometry import gained
from analyses.head_geometry.analysis import CLAIMS
from analyses.head_geometry.descriptors import DESCRIPTORS, describe
from analyses.head_geometry.regression import regress
from analyses.head_geometry.table import tabulate, unfit
from analyses.records import plain, unexplained_nulls
from tests.strategies import seeds


def attention(*, layers=12, heads=8, modes=6, slope=-0.8, seed=0):
    """A record of attention_stats in which entropy falls with ln σmax (for a negative slope), plus noise of 0.3."""
    rng = np.random.default_rng(seed)
    sigma = -np.sort(-np.abs(rng.normal(size=(layers, heads, modes))) * np.exp(rng.normal(size=(layers, heads, 1))))
    entropy = 2 + slope * np.log(sigma[..., 0]) + 0.3 * rng.normal(size=(layers, heads))
    unit = sigma / np.linalg.norm(sigma, axis=-1, keepdims=True)
    return {
        "model": "planted",
        "dtype": "float32",
        "num_layers": layers,
        "num_heads": heads,
        "absent": {},
        "static": [
            {
                "metric_singvals_per_head": (0.5 * sigma[k]).tolist(),
                "singvals_per_head": sigma[k].tolist(),
                "gained_singvals_per_head": unit[k].tolist(),
            }
            for k in range(layers)
        ],
        "dynamic": [
            {
                "mean_attention_entropy_per_head": entropy[k].tolist(),
                "mean_logit_std_per_head": np.exp(-entropy[k]).tolist(),
            }
            for k in range(layers)
        ],
    }


def sample(seed, *, layers=12, heads=6, predictors=3, noise=1.0):
    """(x, y, layer) of a linear relation with drifting predictors."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(layers, heads, predictors)) + rng.normal(size=(layers, 1, predictors)).cumsum(0)
    y = x @ np.arange(1, predictors + 1) + noise * rng.normal(size=(layers, heads))
    return x.reshape(-1, predictors), y.ravel(), np.repeat(np.arange(layers), heads)


def test_descriptors_of_four_three_zero_by_hand():
    found = describe(np.array([4.0, 3.0, 0.0]))
    expected = {
        "op": 4,
        "fro": 5,
        "trace": 7,
        "rank_eff": 7 / 4,
        "spec_ent": -(16 / 25) * math.log(16 / 25) - (9 / 25) * math.log(9 / 25),
        "anisotropy": 12 / 7,
    }
    assert np.isnan(found.pop("condition"))  # σmin = 0
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-15)


def test_a_flat_spectrum_is_as_full_as_can_be_and_a_zero_one_has_no_descriptor():
    flat = describe(np.full(8, 3.0))
    assert [float(flat[k]) for k in ("rank_eff", "anisotropy", "condition")] == [8, 1, 1]
    assert float(flat["spec_ent"]) == pytest.approx(math.log(8), rel=1e-15)
    assert all(np.isnan(value) for value in describe(np.zeros(8)).values())
    assert all(np.isnan(value) for value in describe(np.full(8, np.nan)).values())


@given(seeds, st.integers(1, 64))
def test_anisotropy_is_the_number_of_modes_over_the_effective_rank(seed, modes):
    found = describe(np.abs(np.random.default_rng(seed).normal(size=(5, modes))))
    assert found["anisotropy"] * found["rank_eff"] == pytest.approx(np.full(5, modes), rel=1e-15 * 4)  # four roundings


@given(seeds, st.integers(-20, 20))
def test_scaling_a_spectrum_scales_sizes_and_leaves_shapes(seed, power):
    sigma = np.abs(np.random.default_rng(seed).normal(size=(5, 7)))
    one, other = describe(sigma), describe(sigma * 2.0**power)
    for name in DESCRIPTORS:
        factor = 2.0**power if name in ("op", "fro", "trace") else 1.0
        assert np.array_equal(one[name] * factor, other[name]), name  # powers of two are exact


@given(seeds)
def test_r2_out_of_sample_is_at_most_r2_in_the_sample(seed):
    x, y, layer = sample(seed, noise=3.0)
    found = regress(("a", "b", "c"), x, y, layer, seed=0)
    assert found.r2_out_of_sample <= found.r2 <= 1


@given(seeds, st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_regression_does_not_depend_on_units(seed, scale, shift):
    x, y, layer = sample(seed)
    one = regress(("a", "b", "c"), x, y, layer, seed=0)
    other = regress(("a", "b", "c"), x * [scale, 1, 1] + [shift, 0, 0], 3 * y - 7, layer, seed=0)
    # Rounding of the shift against the scale, 1e-16·1e5, times a condition number below 1e3.
    assert one.beta == pytest.approx(other.beta, abs=1e-7)
    assert one.vif == pytest.approx(other.vif, rel=1e-7)
    assert one.r2_out_of_sample == pytest.approx(other.r2_out_of_sample, abs=1e-7)


def test_regression_and_its_folds_agree_with_a_dense_reference():
    x, y, layer = sample(3)
    found = regress(("a", "b", "c"), x, y, layer, seed=0)
    ones = np.ones((len(y), 1))
    errors = []
    for k in range(12):
        rest = layer != k
        design = np.hstack([ones, x])
        coefficients = np.linalg.solve(design[rest].T @ design[rest], design[rest].T @ y[rest])
        errors += list(y[~rest] - design[~rest] @ coefficients)
    assert found.r2_out_of_sample == pytest.approx(
        1 - np.square(errors).sum() / np.square(y - y.mean()).sum(), rel=1e-10
    )
    others = np.hstack([ones, x[:, 1:]])
    residual = x[:, 0] - others @ np.linalg.lstsq(others, x[:, 0], rcond=None)[0]
    assert found.vif[0] == pytest.approx(x[:, 0].var() / residual.var(), rel=1e-10)
    assert sum(found.beta[j] * np.corrcoef(x[:, j], y)[0, 1] for j in range(3)) == pytest.approx(found.r2, rel=1e-10)


def test_collinear_predictors_predict_but_have_no_coefficients():
    x, y, layer = sample(0, predictors=1)
    found = regress(("a", "b"), np.hstack([x, 2 * x]), y, layer, seed=0)
    assert found.beta is None and found.vif is None
    assert found.r2 == pytest.approx(regress(("a",), x, y, layer, seed=0).r2, rel=1e-12)


def test_a_planted_association_passes_from_spectra_to_the_claimed_numbers():
    record = head_geometry.measure(attention(), seed=0)
    values = {name: metric.value for name, metric in record.metrics.items()}
    table = record.tables["exact"]["entropy"]
    assert table.best in ("op", "fro", "trace")
    assert table.descriptors[table.best].r["pooled"] < 0 and values["within_r_signed"] > 0.6
    assert values["best_abs_r"] > 0.6 and values["best_abs_r_shift_p"] == 1 / 24 and values["within_r_p"] == 0.001
    assert record.metrics["best_abs_r"].n == {"layers": 12, "heads": 96, "degrees_of_freedom_within_layers": 84}
    low, high = record.metrics["within_r_signed"].interval
    assert 0 < low < values["within_r_signed"] < high
    # The gained version is scale-free: what was planted in the size of the spectrum is not in its shape.
    assert record.tables["gained"]["entropy"].best_abs_r < 0.5


def test_published_regression_has_a_larger_variance_inflation_than_the_corrected_one():
    table = head_geometry.measure(attention(), seed=0).tables["exact"]["entropy"]
    published, corrected = table.regressions["published"].vif, table.regressions["corrected"].vif
    assert all(more > less for more, less in zip(published, corrected, strict=False))
    assert max(published) > 30  # above 10 a coefficient is commonly held to mean little
    assert table.regressions["corrected"].r2 <= table.regressions["published"].r2


def test_identities_hold_and_every_null_has_its_reason():
    record = head_geometry.measure(attention(heads=3), seed=0)
    assert record.identities["anisotropy_rank_eff"].value < 1e-15 * 4
    assert record.identities["r_decomposition"].value < 1e-14
    assert unexplained_nulls(plain(record)) == []


def test_a_measurement_repeats_exactly_for_a_seed():
    assert plain(head_geometry.measure(attention(), seed=3)) == plain(head_geometry.measure(attention(), seed=3))


def test_without_a_forward_pass_there_are_descriptors_and_no_claims():
    facts = attention() | {"dynamic": None, "absent": {"dynamic": "the model has no tokenizer"}}
    record = head_geometry.measure(facts, seed=0)
    assert np.isfinite(record.descriptors["exact"]["op"]).all()
    assert all(m.value is None and not m.applies and "tokenizer" in m.reason for m in record.metrics.values())
    assert unexplained_nulls(plain(record)) == []


def test_where_all_heads_attend_alike_nothing_is_predicted():
    facts = attention()
    for layer in facts["dynamic"]:
        layer["mean_attention_entropy_per_head"] = [1.5] * 8
    record = head_geometry.measure(facts, seed=0)
    assert all(m.value is None and m.applies and "alike" in m.reason for m in record.metrics.values())
    assert record.tables["exact"]["entropy"] is None and record.tables["exact"]["logit_std"] is not None
    assert unexplained_nulls(plain(record)) == []


def test_dead_heads_leave_the_table_and_a_rank_deficient_one_takes_the_condition_number_along():
    facts = attention()
    facts["static"][3]["singvals_per_head"][2] = [0.0] * 6
    facts["static"][4]["gained_singvals_per_head"][0] = None
    facts["static"][5]["metric_singvals_per_head"][1][-1] = 1e-17
    facts["dynamic"][0]["mean_logit_std_per_head"] = [None] * 8
    record = head_geometry.measure(facts, seed=0)
    tables = record.tables
    assert [tables[v]["entropy"].heads for v in ("published", "exact", "gained")] == [96, 95, 95]
    assert tables["exact"]["logit_std"].layers == list(range(1, 12))
    assert tables["published"]["entropy"].descriptors["condition"] is None
    assert tables["exact"]["entropy"].descriptors["condition"] is not None
    assert unexplained_nulls(plain(record)) == []


@pytest.mark.parametrize(("layers", "heads"), [(2, 8), (3, 3)])
def test_too_few_layers_or_heads_are_called_too_few(layers, heads):
    facts = attention(layers=layers, heads=heads)
    record = head_geometry.measure(facts, seed=0)
    assert all("too few" in m.reason for m in record.metrics.values())


def test_one_mode_a_head_leaves_only_sizes_to_correlate():
    record = head_geometry.measure(attention(modes=1), seed=0)
    table = record.tables["exact"]["entropy"]
    assert [name for name, found in table.descriptors.items() if found] == ["op", "fro", "trace"]
    assert table.regressions["corrected"] is None and record.metrics["r2_out_of_sample"].value is None
    assert record.tables["gained"]["entropy"] is None  # unit spectra of one mode are all alike
    assert unexplained_nulls(plain(record)) == []


def test_one_head_a_layer_has_no_within_part():
    record = head_geometry.measure(attention(heads=1), seed=0)
    assert record.metrics["within_r_signed"].value is None and record.metrics["within_r_p"].value is None
    assert record.metrics["best_abs_r"].value is not None
    assert unexplained_nulls(plain(record)) == []


def test_the_best_of_seven_has_a_larger_chance_level_than_one_descriptor():
    facts = attention(slope=0.0)
    descriptors = describe(np.array([layer["singvals_per_head"] for layer in facts["static"]]))
    entropy = np.array([layer["mean_attention_entropy_per_head"] for layer in facts["dynamic"]])
    assert unfit(descriptors, entropy) is None
    table, _ = tabulate(descriptors, entropy, seed=0)
    assert table.best_shift_p >= table.descriptors[table.best].shift_p
    assert table.shift_null == sorted(table.shift_null) and len(table.shift_null) == 23


@pytest.mark.parametrize("metric", [*CLAIMS, *gained.NAMES])
def test_a_metric_asked_for_alone_is_that_of_the_whole_record(metric):
    whole, spared = (head_geometry.measure(attention(), seed=0, asked=asked) for asked in (None, {metric}))
    assert spared.metrics[metric] == whole.metrics[metric]
    assert set(spared.metrics) & set(gained.NAMES) <= {metric}  # each has a test of its own to pay for
    assert spared.tables["published"]["entropy"] is None
    assert spared.absent["tables.published.entropy"] == spared.absent["tables.gained.logit_std"] == "no claim reads it"
