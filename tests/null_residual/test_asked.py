"""A measurement that is asked for some metrics: the numbers of the whole record, and none that they do not read."""

import pytest

from analyses import null_residual
from analyses.forward.inputs import Inputs, Passes, Settings
from analyses.null_residual.analysis import analyse
from analyses.null_residual.asked import METRICS
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import tiny_checkpoint

ALL = [metric for metrics in METRICS.values() for metric in metrics]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked") / "model"
    return open_checkpoint(str(tiny_checkpoint(folder, "qwen3", layers=3, tokenizer=False)))


@pytest.fixture(scope="module")
def whole(checkpoint):
    return null_residual.measure(checkpoint, seed=0, device="cpu")


def measured(checkpoint, *claimed):
    settings = Settings(device="cpu", spectra="exact", claimed=frozenset(f"null_residual.{path}" for path in claimed))
    passes = Passes(skipped="")
    inputs = Inputs(name="null_residual", checkpoint=checkpoint, settings=settings, passes=passes, record_of=lambda n: {})
    return analyse(inputs)[0]


def test_every_metric_of_the_record_is_one_that_can_be_asked_for(whole):
    assert set(whole.metrics) == set(ALL)


@pytest.mark.parametrize("metric", ALL)
def test_a_metric_asked_for_alone_is_that_of_the_whole_record_to_the_last_bit(checkpoint, whole, metric):
    assert measured(checkpoint, f"metrics.{metric}").metrics[metric] == whole.metrics[metric]


def test_metrics_asked_for_together_are_those_of_the_whole_record(checkpoint, whole):
    record = measured(checkpoint, *(f"metrics.{metric}" for metric in ALL))
    assert record.metrics == whole.metrics
    assert record.grams == whole.grams


def test_chance_levels_that_no_metric_reads_are_left_out(checkpoint, whole):
    record = measured(checkpoint, *(f"metrics.{metric}" for metric in ALL))
    for pair, full in zip(record.pair_results, whole.pair_results, strict=True):
        assert pair.matched == full.matched and not pair.matched_null and full.matched_null
        assert pair.families["q_proj"].eff_rank_shuffled is None and full.families["q_proj"].eff_rank_shuffled
    assert record.scale_pca_singvals is None and whole.scale_pca_singvals


def test_alignment_compares_what_layers_read_and_nothing_that_they_write(checkpoint, whole):
    record = measured(checkpoint, "metrics.read_alignment")
    assert set(record.grams) == {name for name in whole.grams if name.endswith(".read")}
    assert [pair.align for pair in record.grams["ov.read"]] == [pair.align for pair in whole.grams["ov.read"]]


def test_scales_that_another_analysis_reads_need_no_gram_and_no_metric(checkpoint, whole):
    free, stored = measured(checkpoint, "invariant_scales"), measured(checkpoint, "scales")
    assert free.invariant_scales == whole.invariant_scales and not free.grams and free.invariant_scale_pca is None
    assert stored.scales["input_ln"] == whole.scales["input_ln"]
