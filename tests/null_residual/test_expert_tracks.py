"""Experts are compared one by one, all of them, and counted."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses import null_residual
from analyses.null_residual.experts import combine, expert_track, follow_experts, mean_abs_cos
from analyses.records import write_json
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import tiny_checkpoint

ROUNDING = 1e-12  # of sums of a few hundred float64 products, relative


def stack(generator, layers: int = 3, experts: int = 4) -> torch.Tensor:
    return torch.randn(layers, experts, 6, 5, generator=generator, dtype=torch.float64)


def tracks(weights: torch.Tensor):
    return follow_experts(lambda expert: iter(weights[:, expert]), weights.shape[1], seed=(0, 1))


def test_each_expert_is_compared_with_the_one_of_its_index(generator):
    weights = stack(generator)
    track = expert_track(tracks(weights))
    assert track.count == 4
    for pair in range(2):
        for expert in range(4):
            a, b = weights[pair, expert].flatten(), weights[pair + 1, expert].flatten()
            alone = float(a @ b / a.norm() / b.norm())
            assert track.cos[pair][expert] == pytest.approx(alone, abs=ROUNDING)
            assert track.scales[pair][expert] == pytest.approx(float(weights[pair, expert].norm()), rel=ROUNDING)


def test_the_familys_numbers_are_means_over_experts_and_its_scale_that_of_all(generator):
    weights = stack(generator)
    whole, each = combine(tracks(weights)), expert_track(tracks(weights))
    for pair in range(2):
        assert whole.pairs[pair].cos == pytest.approx(sum(each.cos[pair]) / 4, abs=ROUNDING)
        assert whole.pairs[pair].scalar_explained == pytest.approx(sum(c**2 for c in each.cos[pair]) / 4, abs=ROUNDING)
        assert whole.pairs[pair].eff_rank_ratio == pytest.approx(sum(each.eff_rank_ratio[pair]) / 4, rel=ROUNDING)
    for layer in range(3):
        assert whole.norms[layer] == pytest.approx(float(weights[layer].norm()), rel=ROUNDING)


def test_experts_of_opposite_sign_do_not_cancel(generator):
    weights = stack(generator, layers=2, experts=2)
    weights[1] = weights[0] * torch.tensor([1.0, -1.0])[:, None, None]
    assert combine(tracks(weights)).pairs[0].cos == pytest.approx(0, abs=ROUNDING)
    assert mean_abs_cos(tracks(weights)) == [pytest.approx(1, abs=ROUNDING)]


def test_an_expert_that_is_all_zero_is_left_out_of_the_mean_only(generator):
    weights = stack(generator)
    weights[1, 2] = 0
    whole, each = combine(tracks(weights)), expert_track(tracks(weights))
    assert each.cos[0][2] is None and each.cos[1][2] is None
    assert whole.pairs[0].cos == pytest.approx(sum(c for c in each.cos[0] if c is not None) / 3, abs=ROUNDING)
    weights[1] = 0
    nothing = combine(tracks(weights))
    assert nothing.pairs[0].cos is None and "in every expert" in nothing.absent["0.*"]


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_the_record_counts_the_experts_and_holds_each(tmp_path, name):
    folder = tiny_checkpoint(tmp_path / "model", name, tokenizer=False)
    record = null_residual.measure(open_checkpoint(str(folder)), seed=0, device="cpu")
    assert set(record.experts) == {"gate_proj", "up_proj", "down_proj"}
    assert {track.count for track in record.experts.values()} == {4}
    assert record.metrics["worst_median_abs_cos"].n == {"pairs": 2, "experts": 4}
    assert any("index by index: an arbitrary pairing" in note for note in record.notes)
    assert any("4 experts: the numbers of gate, up and down are means" in note for note in record.notes)
    assert set(record.pair_results[0].matched) == {"qk", "vo"}
    assert "heads alone" in record.metrics["worst_median_abs_cos_matched"].method


def test_the_identities_hold_for_every_expert_and_a_dead_one_has_its_reason(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", "mixtral", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.block_sparse_moe.experts.3.w1.weight"].zero_()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    record = null_residual.measure(open_checkpoint(str(folder)), seed=0, device="cpu")
    assert record.experts["gate_proj"].cos[0][3] is None
    # Pairs of 2 × (4 attention matrices, 2 gains) and of 2 × 3 × 4 experts, less the two of the dead one.
    assert record.identities["resid_direct"].n == {"cases": 12 + 24 - 2}
    assert record.identities["resid_direct"].value < ROUNDING
    assert math.isfinite(record.pair_results[0].families["gate_proj"].cos)
    write_json(tmp_path / "record.json", record)  # which refuses a null without a reason
