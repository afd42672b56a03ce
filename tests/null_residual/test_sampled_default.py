"""What stands for a wide model by default: its errors are honest, and what is narrow stays exact."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses import null_residual
from analyses.forward.inputs import Inputs, NotMeasured, Passes, Settings
from analyses.null_residual.alignment import follow_grams
from analyses.null_residual.analysis import analyse
from analyses.null_residual.matching import matched_cosines
from analyses.null_residual.pairs import SAMPLED_SIDE, settled
from analyses.records import plain, unexplained_nulls
from analyses.weights.checkpoint import open_checkpoint
from checks.bench.checkpoints import SIZES, write

WIDE = replace(
    SIZES["tiny"], layers=2, hidden=SAMPLED_SIDE, heads=8, kv_heads=4, head_dim=32, feed_forward=2 * SAMPLED_SIDE
)
SHARED = 0.7  # of each layer's weights, common to both: cosines of neurons near 0.7, of heads' maps near 0.5
MATCHED = ("gate", "up", "down", "qk", "vo")


def write_related(folder):
    """Two layers with a common part; the second in another order of neurons and of groups of heads."""
    write(WIDE, folder)
    first, second = (load_file(folder / f"layer-00{i}.safetensors") for i in (0, 1))
    neurons = torch.randperm(WIDE.feed_forward, generator=torch.Generator().manual_seed(1))
    for name, weight in second.items():
        if weight.ndim == 2:
            common = first[name.replace("layers.1.", "layers.0.")].float()
            weight = SHARED * common + (1 - SHARED**2) ** 0.5 * weight.float()
            weight = weight[:, neurons] if "down_proj" in name else weight[neurons] if "mlp" in name else weight
            second[name] = weight.bfloat16()
    save_file(second, folder / "layer-001.safetensors", metadata={"format": "pt"})
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def related(tmp_path_factory):
    return write_related(tmp_path_factory.mktemp("related") / "model")


@pytest.fixture(scope="module")
def pairs(related):
    return [matched_cosines(related, seed=0, device="cpu", exact=exact)[0] for exact in (True, False)]


def test_auto_is_exact_until_a_stream_is_wide_enough_and_what_is_asked_for_stays():
    assert [settled("auto", side) for side in (128, 256, SAMPLED_SIDE - 1)] == ["exact"] * 3
    assert settled("auto", SAMPLED_SIDE) == "sampled"
    assert [settled(asked, SAMPLED_SIDE) for asked in ("exact", "sampled", "none")] == ["exact", "sampled", "none"]


def test_a_sample_of_neurons_and_of_directions_tells_the_cosine_of_all_within_its_error(pairs):
    exact, sampled = pairs
    assert exact.error == {} and set(sampled.error) == set(MATCHED)
    for role in MATCHED:
        assert exact.cos[role] > 0.4, role  # the planted relation is there to be estimated
        assert 0 < sampled.error[role] < 0.03, role
        assert abs(sampled.cos[role] - exact.cos[role]) < 3 * sampled.error[role], role  # seeds are fixed
        assert abs(sampled.chance[role]) < 0.02, role  # 256 cosines of 1/√512, as many heads' maps


def test_no_order_of_neurons_or_groups_moves_the_sample(related, pairs, tmp_path):
    folder = tmp_path / "model"
    turned = write_related(folder)
    second = load_file(folder / "layer-001.safetensors")
    order = torch.randperm(WIDE.feed_forward, generator=torch.Generator().manual_seed(2))
    for name, weight in second.items():
        if "mlp" in name:
            second[name] = (weight[:, order] if "down_proj" in name else weight[order]).contiguous()
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            second[name] = weight.view(2, -1, WIDE.hidden).flip(0).flatten(0, 1).contiguous()
        if name.endswith("o_proj.weight"):
            second[name] = weight.view(WIDE.hidden, 2, -1).flip(1).flatten(1).contiguous()
    save_file(second, folder / "layer-001.safetensors", metadata={"format": "pt"})
    found = matched_cosines(turned, seed=0, device="cpu", exact=False)[0]
    assert found.cos == pytest.approx(pairs[1].cos, abs=1e-5)  # float32 products, in another order


def test_grams_of_float32_rows_are_those_of_float64_rows(related):
    exact, narrow = (follow_grams(related, seed=0, device="cpu", spectra=how) for how in ("exact", "sampled"))
    assert narrow.scales.keys() == exact.scales.keys()
    for name, track in exact.scales.items():
        assert narrow.scales[name] == pytest.approx(track, rel=1e-6), name  # entries times gains, to half of 1.2e-7
    for name, (pair,) in exact.pairs.items():
        other = narrow.pairs[name][0]
        # 1e-6 of a Gram's norm, of which what is compared here, its deviation, is a third or more; two Grams
        assert other.align == pytest.approx(pair.align, abs=6e-6), name
        assert other.channel_r == pytest.approx(pair.channel_r, abs=1e-4), name  # of logarithms that vary by 0.1
        assert other.distance == pytest.approx(pair.distance, abs=1e-6), name
        assert pair.rank_ratio_error == 0 <= other.rank_ratio_error
        assert abs(other.rank_ratio - pair.rank_ratio) < 3 * other.rank_ratio_error + 1e-6, name


def test_weights_of_any_size_have_the_same_grams_in_float32(related, tmp_path):
    """A power of two moves every entry exactly: its squares alone would leave the range of float32."""
    folder = tmp_path / "model"
    write_related(folder)
    for path in folder.glob("layer-*.safetensors"):
        tensors = load_file(path)
        small = {name: w * 2.0**-90 if "mlp" in name and w.ndim == 2 else w for name, w in tensors.items()}
        save_file(small, path, metadata={"format": "pt"})
    plain_pairs, scaled = (
        follow_grams(checkpoint, seed=0, device="cpu", spectra="sampled")
        for checkpoint in (related, open_checkpoint(str(folder)))
    )
    assert scaled.pairs == plain_pairs.pairs
    assert scaled.scales["gate"] == pytest.approx([x * 2.0**-90 for x in plain_pairs.scales["gate"]], rel=1e-12)


def test_a_default_record_says_what_was_sampled_and_a_narrow_one_has_nothing_to_say(related, tmp_path):
    wide = plain(null_residual.measure(related, seed=0, device="cpu", spectra="auto"))
    assert wide["spectra"] == "sampled"
    assert all(error > 0 for error in wide["pair_results"][0]["matched_error"].values())
    assert any("stand for all in the matched comparison" in note for note in wide["notes"])
    assert not unexplained_nulls(wide)
    narrow = open_checkpoint(str(write(SIZES["tiny"], tmp_path / "narrow")))
    auto, exact = (plain(null_residual.measure(narrow, seed=0, device="cpu", spectra=s)) for s in ("auto", "exact"))
    assert auto == exact and auto["spectra"] == "exact" and "matched_error" not in auto["pair_results"][0]


def test_without_spectra_and_matching_the_published_statistics_are_left_and_the_rest_has_its_reason(tmp_path):
    def none(name):
        raise NotMeasured(name)

    checkpoint = open_checkpoint(str(write(SIZES["tiny"], tmp_path / "model")))
    settings = Settings(device="cpu", spectra="none", matching="none")
    inputs = Inputs(
        name="null_residual", checkpoint=checkpoint, settings=settings, passes=Passes(skipped=""), record_of=none
    )
    record = plain(analyse(inputs)[0])
    whole = plain(null_residual.measure(checkpoint, seed=0, device="cpu"))
    for left, full in zip(record["pair_results"], whole["pair_results"], strict=True):
        for field in ("cos", "resid_norm", "scalar_resid"):
            assert left["families"]["q_proj"][field] == full["families"]["q_proj"][field]
        assert left["matched"] == {}
    assert record["scales"] == whole["scales"] and record["scale_pca_singvals"] == whole["scale_pca_singvals"]
    assert "--no-matching" in record["metrics"]["worst_median_abs_cos_matched"]["reason"]
    assert "--no-matching" in record["metrics"]["read_alignment"]["reason"]
    assert not unexplained_nulls(record)
