"""The record of the adjacent-layer comparison: planted models, what is left out, and the judged numbers."""

import dataclasses
import math
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from analyses import null_residual, records
from analyses.errors import InputError
from analyses.null_residual import metrics
from analyses.null_residual.family import follow, summarise
from analyses.null_residual.pairs import FamilyPair
from analyses.numerics import intervals
from analyses.weights.architectures import FAMILIES, GAINS, MATRICES
from analyses.weights.checkpoint import open_checkpoint
from tests.strategies import seeds
from tests.tiny import TINY, tiny_checkpoint

PUBLISHED = {
    "model",
    "pair_results",
    "scales",
    "scale_pca_singvals",
    "scale_pca_loadings",
    "scale_pca_scores",
    "fam_used",
}
ROUNDING = 1e-12  # a few thousand eps: sums over some thousand entries


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(folder: Path, *, seed: int = 0) -> null_residual.NullResidual:
    return null_residual.measure(open_checkpoint(str(folder)), seed=seed, device="cpu")


def edited(tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], None], *, kind: str = "llama", **sizes) -> Path:
    """A tiny checkpoint with its weights edited in place."""
    folder = tiny_checkpoint(tmp_path / "model", kind, tokenizer=False, **sizes)
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    shutil.rmtree(folder / "model.safetensors", ignore_errors=True)
    save_file({name: t.contiguous() for name, t in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("null") / "llama", "llama", tokenizer=False)


def written(record: null_residual.NullResidual, folder: Path) -> dict:
    """The record as read back from disk; writing refuses a null without a reason."""
    records.write_json(folder / "null_residual.json", record)
    return records.read_json(folder / "null_residual.json")


# --- known answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.9])
def test_improve_frac_as_published_is_one_minus_root_half_one_plus_cos(cosine):
    layers = [torch.eye(4, dtype=torch.float64)[0]]
    for axis in (1, 2, 3):  # each layer leans from the last one towards a new axis
        layers.append(cosine * layers[-1] + math.sqrt(1 - cosine**2) * torch.eye(4, dtype=torch.float64)[axis])
    summary = summarise(follow(layers, seed=(0,)).pairs)
    assert summary.mean_cos == pytest.approx(cosine, abs=ROUNDING)
    assert summary.scalar_explained == pytest.approx(cosine**2, abs=ROUNDING)
    assert summary.improve_frac == pytest.approx(1 - math.sqrt((1 + cosine) / 2), abs=ROUNDING)
    if cosine == 0:
        assert summary.improve_frac == pytest.approx(0.293, abs=5e-4)  # the erratum's digits


def test_scaled_copies_of_one_layer_leave_nothing_to_improve_on():
    w = gaussian(6, 8)
    track = follow([w, 3 * w, w / 7], seed=(0,))
    assert [pair.cos for pair in track.pairs] == pytest.approx([1, 1], abs=ROUNDING)
    assert summarise(track.pairs).improve_frac is None
    assert "identical up to scale" in track.absent["0.*eff_rank*"]


def test_scales_are_frobenius_norms_in_layer_order(llama):
    checkpoint, record = open_checkpoint(str(llama)), measured(llama)
    for family in checkpoint.families:
        expected = [float(checkpoint.weight(family, layer).square().sum().sqrt()) for layer in range(3)]
        assert record.scales[family] == pytest.approx(expected, rel=ROUNDING)


def test_pairs_name_their_layers_and_compare_those(llama):
    checkpoint, record = open_checkpoint(str(llama)), measured(llama)
    assert [(pair.L, pair.L_next) for pair in record.pair_results] == [(0, 1), (1, 2)]
    for pair in record.pair_results:
        a, b = (checkpoint.weight("up_proj", layer).flatten() for layer in (pair.L, pair.L_next))
        assert pair.families["up_proj"].cos == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=ROUNDING)


def test_a_layer_mixed_into_the_next_fails_in_stored_coordinates_where_fresh_layers_do_not(tmp_path, llama):
    def mix(w: dict[str, torch.Tensor]) -> None:
        for layer in (1, 2):
            for key in [k for k in w if f".layers.{layer}." in k and w[k].ndim == 2]:
                before = w[key.replace(f".{layer}.", f".{layer - 1}.")]
                w[key] = 0.5 * before * w[key].norm() / before.norm() + math.sqrt(0.75) * w[key]

    fresh, mixed = measured(llama).metrics, measured(edited(tmp_path, mix)).metrics
    assert fresh["worst_median_abs_cos"].value < 0.1
    assert mixed["worst_median_abs_cos"].value == pytest.approx(0.5, abs=0.1)  # sampling error at 16×32 entries
    assert mixed["worst_median_cos_sq"].value == pytest.approx(0.25, abs=0.1)
    assert mixed["worst_median_abs_cos_matched"].value > 0.3 > fresh["worst_median_abs_cos_matched"].value


# --- invariants of the whole record -------------------------------------------------------------


@pytest.mark.parametrize("kind", TINY)
def test_every_null_of_every_architecture_has_its_reason(kind, tmp_path):
    record = measured(tiny_checkpoint(tmp_path / kind, kind, tokenizer=False))
    tree = written(record, tmp_path)
    assert PUBLISHED <= set(tree)
    assert set(tree["scales"]) == set(FAMILIES)
    checkpoint = open_checkpoint(str(tmp_path / kind))
    present = set(checkpoint.families)
    units = {"qk", "vo"} | {f.removesuffix("_proj") for f in present & {"gate_proj", "up_proj", "down_proj"}}
    units = {"qk", "vo"} if checkpoint.shape.experts else units
    for family in FAMILIES:
        assert (tree["scales"][family] is None) == (family not in present)
        assert (f"scales.{family}" in tree["absent"]) == (family not in present)
    for pair in tree["pair_results"]:
        assert set(pair["families"]) == present
        assert set(pair["matched"]) == set(pair["matched_null"]) == units
        for family, numbers in pair["families"].items():
            assert (numbers["resid_eff_rank"] is None) == (family in GAINS)
            assert (numbers["eff_rank_page"] is None) == (family in GAINS or record.sides[family] < 32)
    assert set(tree["fam_used"]) == present
    assert len(tree["scale_pca_loadings"]) == len(present)
    assert len(tree["scale_pca_scores"]) == 3  # layers


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_draws(llama, tmp_path):
    for i, seed in enumerate((0, 0, 1)):
        records.write_json(tmp_path / f"{i}.json", measured(llama, seed=seed))
    first, again, other = ((tmp_path / f"{i}.json").read_bytes() for i in range(3))
    assert first == again != other


def test_a_seed_moves_only_what_is_drawn(llama):
    one, two = (measured(llama, seed=seed).pair_results[0].families["q_proj"] for seed in (0, 1))
    drawn = {f.name for f in dataclasses.fields(FamilyPair) if getattr(one, f.name) != getattr(two, f.name)}
    assert drawn == {"eff_rank_shuffled", "eff_rank_haar", "eff_rank_ratio"}


def test_without_spectra_all_else_is_the_same_and_every_null_has_its_reason(llama, tmp_path):
    checkpoint = open_checkpoint(str(llama))
    full = written(measured(llama), tmp_path)
    bare = written(null_residual.measure(checkpoint, seed=0, device="cpu", spectra="none"), tmp_path)
    assert bare["spectra"] == "none" and "--spectra none" in bare["metrics"]["worst_eff_rank_ratio"]["reason"]
    assert bare["identities"]["spectrum_energy"]["applies"] is False
    for left, right in zip(bare["pair_results"], full["pair_results"], strict=True):
        assert left["matched"] == right["matched"]
        for family, pair in left["families"].items():
            spectral = {k for k, v in pair.items() if v != right["families"][family][k]}
            assert all("rank" in k or "spec" in k for k in spectral)
            assert pair["resid_eff_rank"] is None
    assert "--spectra none" in bare["absent"]["pair_results.*.families.q_proj.*eff_rank*"]


def test_identities_hold_to_rounding_and_notice_a_wrong_residual(llama):
    record = measured(llama)
    for name, identity in record.identities.items():
        assert identity.value < 1e-13, name  # side × eps
        assert identity.n["cases"] >= 14
    pairs = [dict(pair.families) for pair in record.pair_results]
    sizes = {f: 1 for f in pairs[0]}
    wrong = dataclasses.replace(pairs[0]["q_proj"], resid_norm=pairs[0]["q_proj"].resid_norm + 1e-6)
    assert metrics.identities([pairs[0] | {"q_proj": wrong}], sizes)["resid_direct"].value > 1e-7


def test_at_most_two_layers_of_a_family_are_alive_at_a_time():
    alive: list[weakref.ref] = []

    def layers() -> Iterator[torch.Tensor]:
        for seed in range(6):
            weight = gaussian(8, 8, seed=seed)
            alive.append(weakref.ref(weight))
            yield weight
            del weight
            assert sum(ref() is not None for ref in alive) <= 2

    assert len(follow(layers(), seed=(0,)).pairs) == 5


# --- the numbers that are judged ----------------------------------------------------------------


@given(st.integers(1, 6), st.integers(2, 12), seeds)
def test_the_worst_family_is_the_one_with_the_extreme_median(families, pairs, seed):
    rows = {f"f{i}": row.tolist() for i, row in enumerate(np.random.default_rng(seed).random((families, pairs)))}
    for reduce in (np.max, np.min):
        metric = metrics.worst(rows, reduce, seed=0, method="", absent="")
        medians = {name: float(np.median(row)) for name, row in rows.items()}
        assert metric.value == reduce(list(medians.values()))
        assert medians[metric.where] == metric.value
        assert metric.n == {"pairs": pairs}
        assert (metric.interval is None) == (pairs < intervals.LEAST)
        assert metric.interval is None or metric.interval[0] <= metric.value <= metric.interval[1]


def test_the_interval_allows_for_the_worst_of_many_families_having_been_chosen():
    """Of exchangeable families the worst lies high by chance: its lower bound is below that of itself alone."""
    table = np.random.default_rng(0).random((20, 15))
    many = metrics.worst(
        {str(i): row.tolist() for i, row in enumerate(table)}, np.max, seed=0, method="", absent=""
    )
    alone = metrics.worst({many.where: table[int(many.where)].tolist()}, np.max, seed=0, method="", absent="")
    assert many.value == alone.value
    assert many.members[many.where].bonferroni[0] < alone.interval[0]
    assert many.members[many.where].interval == alone.interval


def test_a_pair_that_one_family_lacks_counts_in_the_others():
    metric = metrics.worst({"a": [1.0, None, 3.0], "b": [0.0, 9.0, 1.0]}, np.max, seed=0, method="", absent="")
    assert (metric.value, metric.where, metric.n) == (2.0, "a", {"pairs": 2})
    assert metric.members["b"].n == {"pairs": 3} and metric.members["b"].value == 1.0


def test_a_family_without_any_number_leaves_the_metric_undefined_and_is_named():
    metric = metrics.worst({"a": [1.0, 2.0], "b": [None, None]}, np.min, seed=0, method="", absent="")
    assert metric.value is None
    assert metric.applies
    assert "b" in metric.reason


def test_a_question_about_no_family_does_not_apply():
    metric = metrics.worst({}, np.min, seed=0, method="", absent="the model's norms have no gains")
    assert (metric.value, metric.applies, metric.reason) == (None, False, "the model's norms have no gains")


def test_metrics_carry_the_counts_that_the_claims_ask_for(llama):
    metrics = measured(llama).metrics
    for name in ("worst_median_abs_cos", "worst_median_abs_cos_matched", "worst_median_cos_sq", "worst_gain_z"):
        assert metrics[name].n["pairs"] == 2
    assert metrics["worst_eff_rank_ratio"].n == {"pairs": 2, "side": 32}
    assert metrics["first_mode_above_parallel"].n == {"layers": 3}


def test_matrices_below_side_32_have_no_rank_claim_and_the_side_is_stated(tmp_path):
    folder = tiny_checkpoint(tmp_path / "narrow", "llama", tokenizer=False, hidden_size=16, head_dim=4)
    metric = measured(folder).metrics["worst_eff_rank_ratio"]
    assert metric.value is None
    assert metric.n["side"] == 16
    assert "at least 32" in metric.reason


# --- what a tensor does not allow ---------------------------------------------------------------


def test_an_all_zero_matrix_is_absent_with_its_reason_and_the_rest_stays(tmp_path):
    key = "model.layers.1.mlp.up_proj.weight"
    record = measured(edited(tmp_path, lambda w: w[key].zero_()))
    tree = written(record, tmp_path)
    numbers = tree["pair_results"][0]["families"]
    assert set(numbers["up_proj"].values()) == {None}
    assert numbers["down_proj"]["cos"] is not None
    assert tree["scales"]["up_proj"][1] == 0
    assert "up_proj" not in tree["fam_used"]
    assert any("up_proj is all zero in 1 layer" in note for note in tree["notes"])
    assert tree["pair_results"][0]["matched"]["up"] is None
    assert tree["metrics"]["worst_median_abs_cos"]["value"] is None
    assert "up_proj" in tree["metrics"]["worst_median_abs_cos"]["reason"]


def test_constant_gains_have_no_pattern_to_share(tmp_path):
    def fold(w: dict[str, torch.Tensor]) -> None:
        for key in [k for k in w if k.endswith("input_layernorm.weight")]:
            w[key].fill_(1)

    tree = written(measured(edited(tmp_path, fold)), tmp_path)
    assert tree["pair_results"][0]["families"]["input_ln"]["cos"] == pytest.approx(1, abs=ROUNDING)
    assert tree["pair_results"][0]["families"]["input_ln"]["pearson"] is None
    for name in ("worst_gain_pearson", "worst_gain_z"):
        assert tree["metrics"][name]["value"] is None
        assert "input_ln" in tree["metrics"][name]["reason"]
    assert any("input_ln" in note and "same in every layer" in note for note in tree["notes"])
    assert "input_ln" not in tree["scale_pca_standardised"]["families"]


def test_identical_layers_leave_no_spectrum_and_no_scale_mode(tmp_path):
    def clone(w: dict[str, torch.Tensor]) -> None:
        for key in [k for k in w if ".layers.0." in k]:
            for layer in (1, 2):
                w[key.replace(".layers.0.", f".layers.{layer}.")] = w[key].clone()

    tree = written(measured(edited(tmp_path, clone)), tmp_path)
    for family in MATRICES:
        assert tree["pair_results"][0]["families"][family]["resid_norm"] == 0
        assert tree["pair_results"][0]["families"][family]["resid_eff_rank"] is None
        assert tree["summary"][family]["improve_frac"] is None
    assert tree["metrics"]["worst_eff_rank_ratio"]["value"] is None
    assert tree["metrics"]["worst_median_abs_cos_matched"]["value"] == pytest.approx(1, abs=ROUNDING)
    assert tree["metrics"]["first_mode_standardised"]["value"] is None
    assert tree["scale_pca_explained"] is None


def test_a_model_of_two_layers_has_one_pair_and_no_interval(tmp_path):
    record = measured(tiny_checkpoint(tmp_path / "two", "qwen3", tokenizer=False, layers=2))
    written(record, tmp_path)
    assert len(record.pair_results) == 1
    assert record.metrics["worst_median_abs_cos"].interval is None


def test_a_checkpoint_with_a_nan_is_refused_by_name(tmp_path):
    key = "model.layers.2.self_attn.k_proj.weight"

    def spoil(w: dict[str, torch.Tensor]) -> None:
        w[key][0, 0] = math.nan

    with pytest.raises(InputError, match=key):
        measured(edited(tmp_path, spoil))
