"""What is measured alone or at once is what is measured with the rest, one by one."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses import head_grams
from analyses.forward.inputs import Inputs, Passes, Settings
from analyses.head_grams import head_ranks
from analyses.head_grams.summaries import medians, shares
from analyses.records import plain
from analyses.weights.checkpoint import open_checkpoint
from tests.strategies import seeds
from tests.tiny import tiny_checkpoint


def record(checkpoint, *names: str) -> dict:
    claimed = frozenset(f"head_grams.metrics.{name}" for name in names) if names else None
    settings = Settings(device="cpu", claimed=claimed)
    inputs = Inputs(
        name="head_grams", checkpoint=checkpoint, settings=settings, passes=Passes(), record_of=lambda name: {}
    )
    return plain(head_grams.analyse(inputs)[0])


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_metrics_asked_for_alone_are_those_of_the_whole_record(tmp_path, name):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, name, tokenizer=False, layers=4)))
    whole = record(checkpoint)["metrics"]
    for asked in (["qk_rank_ratio"], ["plane_rho"], ["decoder_symmetry_off", "read_subspace_overlap"],
                  ["ov_rank_ratio", "median_overlap_ratio"], ["encoder_symmetry", "folded_sign_mixed"],
                  ["median_abs_similarity_matched", "mixed_sign_share"]):  # fmt: skip
        found = record(checkpoint, *asked)
        for metric in asked:
            assert found["metrics"][metric] == whole[metric], metric  # the same operations on the same numbers
    assert "median_overlap_ratio" not in record(checkpoint, "qk_rank_ratio")["metrics"]
    assert "all_distance_similarity" not in record(checkpoint, "folded_sign_mixed")["metrics"]


@given(seeds, st.integers(1, 9), st.booleans())
def test_medians_and_shares_of_many_rows_are_those_of_each(seed, width, holes):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, width))
    if holes:
        rows[rng.random(rows.shape) < 0.3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows without a number
        assert np.array_equal(medians(rows), [np.nanmedian(row) for row in rows], equal_nan=True)
        means = [np.nanmean(row) for row in rows]
    assert shares(rows) == pytest.approx(means, rel=1e-14, abs=1e-15, nan_ok=True)  # sums of up to nine, in any order


@pytest.mark.parametrize("name", ["gemma3", "gpt_neox"])
def test_ranks_of_many_layers_at_once_are_those_of_one_after_the_other(tmp_path, monkeypatch, name):
    """Also where layers turn differently: every second one of these gemma3 layers does."""
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, name, tokenizer=False, layers=5)))
    together, _ = head_ranks.measure_ranks(checkpoint, seed=0, device="cpu")
    monkeypatch.setattr(head_ranks, "LOT_BYTES", 1)
    alone, _ = head_ranks.measure_ranks(checkpoint, seed=0, device="cpu")
    assert together.qk_rank_ratio.shape == together.ov_rank_ratio.shape == (5, 4)
    for key in head_ranks.HeadRanks.__dataclass_fields__:
        if (one := getattr(alone, key)) is not None:
            # Ratios are smooth, of spectra of side 8 that are right to some eps.
            np.testing.assert_allclose(getattr(together, key), one, rtol=1e-11, err_msg=key)
