"""The judged numbers of Grams and invariant scales: the worst is named, identical layers are said, plants are found."""

import numpy as np
import pytest
import torch

from analyses import null_residual
from analyses.null_residual.alignment import GramPair, GramTracks
from analyses.null_residual.invariant import mode_metrics, pair_metrics
from analyses.null_residual.scales import DRAWS, scale_pca, walk_p
from analyses.records import plain, unexplained_nulls
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.maps.gains import RAMP_INPUT_GAIN
from checks.twins.roles import Role
from checks.twins.twins import INITIALISED, Twin, TwinCheckpoint
from tests.tiny import tiny_checkpoint

LAYERS = 12
COOLING = 0.9  # a layer


def pair(align: float = 0.5, **values) -> GramPair:
    found = dict(align=align, channel_r=align / 2, distance=1.0, eff_rank=9.0, eff_rank_haar=10.0, rank_ratio=0.9)
    return GramPair(**found | values)


IDENTICAL = dict(distance=0.0, eff_rank=None, eff_rank_haar=None, rank_ratio=None)


def judged(pairs: dict[str, list[GramPair]], *, side: int = 64, spectra: str = "exact"):
    return pair_metrics(GramTracks(pairs=pairs, scales={}, side=side), {}, spectra=spectra, seed=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Checkpoint:
    return open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("m"), "llama", layers=LAYERS, tokenizer=False)))


def measured(checkpoint: Checkpoint):
    record = null_residual.measure(checkpoint, seed=0, device="cpu")
    assert unexplained_nulls(plain(record)) == []
    return record


def twin(checkpoint: Checkpoint, change) -> TwinCheckpoint:
    return Twin(name="planted", preserves="", destroys="", change=change).apply(checkpoint, 0)


# --- alignment and rank ---------------------------------------------------------------------------


def test_a_claim_of_presence_is_judged_by_the_kind_that_shows_it_least():
    reads = {"gate.read": [pair(0.7)] * 5, "q.read": [pair(a) for a in (0.1, 0.3, 0.2, 0.9, 0.2)]}
    found = judged(reads | {"down.write": [pair(-0.4, rank_ratio=0.6)] * 5})
    assert found["read_alignment"].value == 0.2 and found["read_alignment"].where == "q.read"
    assert found["read_alignment"].interval[0] < 0.2 < found["read_alignment"].interval[1]
    members = found["read_alignment"].members
    assert {name: member.value for name, member in members.items()} == {"gate.read": 0.7, "q.read": 0.2}
    assert members["q.read"].bonferroni[0] <= members["q.read"].interval[0]
    assert found["read_channel_r"].value == 0.35 and found["read_channel_r"].where == "gate.read"
    assert found["read_write_rank_ratio"].value == 0.6 and found["read_write_rank_ratio"].where == "down.write"
    assert found["read_write_rank_ratio"].n == {"pairs": 5, "side": 64}


def test_identical_layers_have_no_rank_ratio_and_are_counted():
    some = {"gate.read": [pair()] * 5, "up.read": [pair()] * 3 + [pair(**IDENTICAL)] * 2}
    found = judged(some)["read_write_rank_ratio"]
    assert found.value == 0.9 and found.n == {"pairs": 3, "side": 64, "identical": 2}
    all_of_one = {"gate.read": [pair()] * 5, "up.read": [pair(**IDENTICAL)] * 5}
    found = judged(all_of_one)["read_write_rank_ratio"]
    assert found.value is None and found.n["identical"] == 5
    assert "identical" in found.reason and "up.read in 5 of 5 pairs" in found.reason


def test_ranks_that_were_left_out_or_of_few_dimensions_have_no_value():
    ranks = {"gate.read": [pair()] * 5}
    assert "--spectra none" in judged(ranks, spectra="none")["read_write_rank_ratio"].reason
    assert "31 dimensions" in judged(ranks, side=31)["read_write_rank_ratio"].reason
    assert judged(ranks, side=31)["read_alignment"].value == 0.5


def test_without_a_reading_matrix_the_question_does_not_apply(base):
    record = measured(base.restricted(families=("input_ln", "q_proj")))
    for name in ("read_alignment", "read_channel_r", "read_write_rank_ratio"):
        assert record.metrics[name].value is None and not record.metrics[name].applies
        assert "left out of this measurement" in record.metrics[name].reason
    assert record.invariant_scales == dict.fromkeys(("qk", "ov", "gate", "up_down"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_copies_at_another_scale_are_identical_to_both_ranks_through_the_rounding_of_their_storage(base, dtype):
    def copy(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
        if role.layer is None or role.bias:
            return value
        first = twin.base.stored(role.part, 0)
        return first if role.is_gain else (1.3**role.layer * first).to(dtype)

    found = measured(twin(base.restricted(layers=range(4)), copy)).metrics
    for name, kinds in {"read_write_rank_ratio": 7, "worst_eff_rank_ratio": 5}.items():  # all but k and v have side 32
        assert found[name].value is None and "identical" in found[name].reason, name
        assert found[name].n["identical"] == kinds * 3, name
    assert found["read_alignment"].value > 0.99


# --- the first mode of invariant scales -------------------------------------------------------------


def scaled(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    cooled = role.part in ("q_proj", "o_proj", "gate_proj", "down_proj") and not role.bias
    return COOLING**role.layer * value.double() if cooled else value


def test_scales_that_cool_together_are_one_mode_that_walks_do_not_reach(base):
    found = measured(twin(INITIALISED.apply(base, 0), scaled))
    for name, track in found.invariant_scales.items():
        steps = np.diff(np.log(track))
        assert np.mean(steps) == pytest.approx(np.log(COOLING), abs=0.03), name  # drawn weights scatter by percents
    mode = found.metrics["invariant_first_mode"]
    assert mode.value > 0.97 and mode.interval[0] <= mode.value <= mode.interval[1]
    assert mode.n == {"layers": LAYERS, "scales": 4}
    assert found.metrics["invariant_first_mode_walk_p"].value <= 0.01


def test_initialised_scales_are_no_mode_and_walks_explain_more(base):
    found = measured(INITIALISED.apply(base, 0)).metrics
    assert found["invariant_first_mode"].value < 0.7
    assert found["invariant_first_mode_walk_p"].value > 0.05


def test_a_ramp_of_the_input_gain_is_a_mode_of_stored_scales_and_none_of_invariant_ones(base):
    plain_model = INITIALISED.apply(base, 0)
    ramped = RAMP_INPUT_GAIN.apply(plain_model, 0)
    before, after = (measured(c).metrics for c in (plain_model, ramped))
    rounding = 1e-12  # of sums of a few thousand float64 products and a small SVD
    for name in ("invariant_first_mode", "invariant_first_mode_walk_p", "read_alignment", "read_channel_r"):
        assert after[name].value == pytest.approx(before[name].value, abs=rounding), name
    assert after["first_mode_standardised"].value > before["first_mode_standardised"].value + 0.1


def test_the_p_of_walks_counts_those_that_explain_as_much_and_one_more():
    rng = np.random.default_rng(0)
    trend = np.linspace(0, 1, 20)
    together = np.stack([trend + 1e-3 * rng.normal(size=20) for _ in range(4)])
    assert walk_p(together, seed=0) == 1 / (1 + DRAWS)
    # Two tracks of equal steps: every walk of theirs that never turns back is as straight as they are.
    straight = np.stack([trend, -trend])[:, :3]
    signs = np.array([[a, b] for a in (-1, 1) for b in (-1, 1)])  # of the two steps of one track
    shapes = np.cumsum(signs, axis=1)
    same = [np.isclose(abs(np.corrcoef(np.r_[0, a], np.r_[0, b])[0, 1]), 1) for a in shapes for b in shapes]
    share = np.mean(same)
    # Four standard deviations of a share among so many draws.
    assert walk_p(straight, seed=0) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / DRAWS))


def test_walks_are_as_uniform_in_p_as_they_are_walks():
    """Of tracks that are walks themselves, a twentieth has p ≤ 0.05: within three standard errors of 120."""
    rng = np.random.default_rng(1)
    found = [walk_p(np.cumsum(rng.normal(size=(4, 24)), axis=1), seed=i) for i in range(120)]
    assert np.mean(np.array(found) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


def test_fewer_than_two_tracks_that_vary_have_no_mode():
    tracks = {"qk": np.linspace(0, 1, 6), "ov": np.zeros(6)}
    found = mode_metrics(tracks, scale_pca(tracks, seed=0, standardise=True), 0)
    assert all(metric.value is None and "fewer than two" in metric.reason for metric in found.values())


def test_the_first_mode_lies_within_its_interval_and_both_within_what_a_share_can_be():
    rng = np.random.default_rng(3)
    for layers in (12, 24):  # of fewer, a resample may hold one layer alone, whose tracks do not vary
        tracks = {name: np.cumsum(rng.normal(size=layers)) for name in ("qk", "ov", "gate", "up_down")}
        mode = mode_metrics(tracks, scale_pca(tracks, seed=0, standardise=True), 0)["invariant_first_mode"]
        assert 0 <= mode.interval[0] <= mode.value <= mode.interval[1] <= 1 and mode.value >= 0.25
