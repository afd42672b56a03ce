"""Alignment and rank of adjacent layers' Grams: known answers, planted ones, chance, and every exact map."""

import math

import numpy as np
import pytest
import torch

from analyses.null_residual import alignment, pairs
from analyses.null_residual.alignment import GramPair, Rotations, Side, compare, follow_grams
from analyses.null_residual.grams import GRAMS, READS
from analyses.numerics import lanczos, spectra
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.maps.catalogue import FOLD_GAINS, MAPS, SCRAMBLE
from checks.maps.names import STREAM
from checks.twins.planted import adjacent_mixture
from checks.twins.roles import Role
from checks.twins.twins import INITIALISED, Twin, TwinCheckpoint
from tests.tiny import tiny_checkpoint

ROUNDING = 1e-12  # of float64 sums of a few thousand products of entries of order one
MAPPED = 1e-9  # a map multiplies, inverts and rotates before: condition numbers of up to 4, and 36 × 36 products


def wishart(side: int, rows: int, *, seed: int) -> torch.Tensor:
    drawn = torch.randn(rows, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.mT @ drawn


def compared(a: torch.Tensor, b: torch.Tensor, *, centred: bool = False, seed: int = 0) -> GramPair:
    return compare(Side(a, centred=centred), Side(b, centred=centred), Rotations(seed, device="cpu"))


def deviating(gram: torch.Tensor) -> torch.Tensor:
    return gram - gram.trace() / len(gram) * torch.eye(len(gram)).double()


def rank(gram: torch.Tensor) -> float:
    share = torch.linalg.eigvalsh(gram / gram.trace()).clamp_min(1e-300)
    return float(torch.exp(-(share * share.log()).sum()))


# --- known answers ------------------------------------------------------------------------------


def test_the_numbers_of_a_pair_are_those_of_their_formulas_on_dense_matrices():
    a, b = wishart(20, 30, seed=0), 7 * wishart(20, 9, seed=1)
    found = compared(a, b)
    one, other = deviating(a), deviating(b)
    assert found.align == pytest.approx(float((one * other).sum() / one.norm() / other.norm()), abs=ROUNDING)
    logs = [np.log(np.diag(x.numpy())) for x in (a, b)]
    assert found.channel_r == pytest.approx(np.corrcoef(*logs)[0, 1], abs=ROUNDING)
    one, other = a / a.trace(), b / b.trace()
    distance = float((one - other).norm() / (one.norm() * other.norm()).sqrt())
    assert found.distance == pytest.approx(distance, rel=ROUNDING)
    assert found.eff_rank == pytest.approx(rank(one + other), rel=ROUNDING)
    assert found.rank_ratio == pytest.approx(found.eff_rank / found.eff_rank_haar, rel=ROUNDING)
    assert found.rank_ratio_error == 0


def test_two_complementary_preferences_align_at_minus_one_and_fill_all_directions():
    half = torch.eye(8).double()
    half[4:] = 0
    found = compared(half, torch.eye(8).double() - half)
    assert found.align == pytest.approx(-1, abs=ROUNDING)
    assert found.eff_rank == pytest.approx(8, rel=ROUNDING) and found.rank_ratio > 1


def test_the_chance_level_of_the_rank_is_that_of_independent_layers():
    """A Gram of Gaussian rows has Haar-random eigenvectors itself; side 64: ranks spread by about 1 % around it."""
    ratios = [
        compared(wishart(64, 80, seed=2 * i), wishart(64, 40, seed=2 * i + 1), seed=i).rank_ratio for i in range(8)
    ]
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)
    aligned = [compared(wishart(64, 80, seed=i), wishart(64, 80, seed=i), seed=i).align for i in range(2)]
    apart = [compared(wishart(64, 80, seed=2 * i), wishart(64, 80, seed=2 * i + 1), seed=i).align for i in range(8)]
    assert aligned == pytest.approx([1, 1], abs=ROUNDING)
    assert max(map(abs, apart)) < 5 / 64  # a cosine in about 64²/2 dimensions, five standard deviations of it


def test_what_a_layer_norm_hides_is_neither_alignment_nor_rank():
    """Blind to a constant, unrelated Grams share that blindness; as a preference it would align them by a third."""
    blind = torch.eye(12).double() - 1 / 12
    seen = [blind @ wishart(12, 300, seed=i) @ blind for i in range(40)]
    made = list(zip(seen[::2], seen[1::2], strict=True))
    hidden = np.mean([compared(a, b).align for a, b in made])
    known = np.mean([compared(a, b, centred=True).align for a, b in made])
    assert hidden > 0.3 and abs(known) < 4 / 12 / math.sqrt(20)  # four standard errors of a cosine in 12²/2 dimensions
    found = compared(*made[0], centred=True)
    assert found.eff_rank <= 11 and found.eff_rank_haar <= 11
    assert compared(blind, made[0][0], centred=True).align is None  # all that it sees, it sees alike


def test_a_rotation_of_both_leaves_all_but_the_channels_alone():
    a, b = wishart(20, 30, seed=0), wishart(20, 25, seed=1)
    turn = spectra.haar(20, 20, torch.Generator().manual_seed(2))
    before, after = compared(a, b), compared(turn @ a @ turn.mT, turn @ b @ turn.mT)
    for field in ("align", "distance", "eff_rank", "eff_rank_haar", "rank_ratio"):
        assert getattr(after, field) == pytest.approx(getattr(before, field), rel=MAPPED), field
    assert abs(after.channel_r - before.channel_r) > 0.01


def test_under_layer_norm_a_rotation_that_keeps_the_constant_leaves_all_but_the_channels_alone():
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(20, 1).double(), wishart(20, 20, seed=9)[:, :19]], dim=1))
    inner = torch.eye(20).double()
    inner[1:, 1:] = spectra.haar(19, 19, torch.Generator().manual_seed(2))
    turn, blind = basis @ inner @ basis.mT, torch.eye(20).double() - 1 / 20
    a, b = (blind @ wishart(20, 30, seed=i) @ blind for i in range(2))
    before = compared(a, b, centred=True)
    after = compared(turn @ a @ turn.mT, turn @ b @ turn.mT, centred=True)
    for field in ("align", "distance", "eff_rank", "eff_rank_haar", "rank_ratio"):
        assert getattr(after, field) == pytest.approx(getattr(before, field), rel=MAPPED), field


# --- identical layers -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.0, 0.3, 1e4])
def test_layers_equal_up_to_a_factor_and_the_rounding_of_their_storage_are_identical(dtype, factor):
    for side, rows in ((16, 48), (64, 64), (96, 8)):
        drawn = torch.randn(rows, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
        a, b = (x.to(dtype).double() for x in (drawn, factor * drawn))
        found = compared(a.mT @ a, b.mT @ b)
        assert found.identical and found.rank_ratio is None
        assert found.align > 0.99


@pytest.mark.parametrize("rows", [16, 4096])
def test_unrelated_layers_are_not_identical_however_many_rows_they_have(rows):
    assert not compared(wishart(16, rows, seed=0), wishart(16, rows, seed=1)).identical


def test_a_zero_gram_and_one_without_preference_have_no_alignment():
    zero, one = torch.zeros(8, 8).double(), torch.eye(8).double()
    assert compared(zero, wishart(8, 9, seed=0)) == GramPair()
    found = compared(one, wishart(8, 9, seed=0))
    assert found.align is None and found.channel_r is None and found.rank_ratio is not None


# --- sampled ranks ----------------------------------------------------------------------------------


def test_sampled_ranks_agree_with_exact_ones_to_their_error(monkeypatch):
    monkeypatch.setattr(alignment, "SAMPLED_SIDE", 64)
    monkeypatch.setattr(lanczos, "SHARE", 2)
    a, b = (Side(wishart(320, 500, seed=i), centred=False) for i in range(2))
    exact = compare(a, b, Rotations(0, device="cpu"))
    sampled = compare(a, b, Rotations(0, device="cpu"), vectors=torch.Generator().manual_seed(1))
    assert 0 < sampled.rank_ratio_error < 0.01
    for field in ("eff_rank", "rank_ratio"):
        # Four standard errors, and 0.5 % for the one exact draw of the chance level.
        relative = getattr(sampled, field) / getattr(exact, field) - 1
        assert abs(relative) < 4 * sampled.rank_ratio_error + 0.005, field


# --- whole models -----------------------------------------------------------------------------------

SIZES = dict(layers=4, hidden_size=36, num_attention_heads=9, tie_word_embeddings=False)
GROUPED = dict(SIZES, num_key_value_heads=3, head_dim=4)
MODELS = {"llama": GROUPED, "qwen3": GROUPED, "gpt2": SIZES, "gpt_neox": SIZES, "gemma2": GROUPED}
MODELS["opt"] = dict(SIZES, word_embed_proj_dim=36)
RUNS = [(kind, map) for kind in MODELS for map in (*MAPS, SCRAMBLE)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = {}

    def build(name: str) -> Checkpoint:
        if name not in made:
            folder = tiny_checkpoint(tmp_path_factory.mktemp("m"), name, tokenizer=False, **MODELS[name])
            made[name] = open_checkpoint(str(folder))
        return made[name]

    return build


def followed(checkpoint: Checkpoint):
    return follow_grams(checkpoint, seed=0, device="cpu")


@pytest.mark.parametrize(("kind", "map"), RUNS, ids=[f"{kind}, {map.name}" for kind, map in RUNS])
def test_no_exact_map_moves_alignment_rank_or_scales(stage, kind, map):
    """Not even by a norm's eps: only weights are read, and what a norm takes off is divided out exactly."""
    checkpoint = stage(kind)
    if reason := map.undefined(checkpoint):
        pytest.skip(reason)
    before, after = followed(checkpoint), followed(map.apply(checkpoint, 3))
    moved = 0.0
    for name, track in before.pairs.items():
        for one, other in zip(track, after.pairs[name], strict=True):
            for field in ("align", "distance", "eff_rank", "eff_rank_haar"):
                assert getattr(other, field) == pytest.approx(getattr(one, field), abs=MAPPED * 36), (name, field)
            moved = max(moved, abs(other.channel_r - one.channel_r))
    assert (moved > 1e-3) == ("rotation" in map.name and "stream" in map.name)
    for name, track in before.scales.items():
        ratio = np.divide(after.scales[name], track)
        if map.name == STREAM and name in ("ov", "up_down"):
            ratio = ratio / ratio[0]  # a scale of the whole stream is one factor of all that layers write
        assert ratio == pytest.approx(np.ones(len(track)), rel=MAPPED), name


def test_scales_of_stored_matrices_would_not_have_passed(stage):
    """The comparison above sees what moves: folding alone moves the gate's stored norm."""
    checkpoint = stage("llama")
    twin = FOLD_GAINS.apply(checkpoint, 0)
    assert abs(float(twin.weight("gate_proj", 0).norm() / checkpoint.weight("gate_proj", 0).norm()) - 1) > 0.01


@pytest.mark.parametrize("kind", MODELS)
def test_initialised_layers_are_aligned_with_nothing_and_fill_what_chance_fills(stage, kind):
    found = followed(INITIALISED.apply(stage(kind), 0))
    for name, track in found.pairs.items():
        # Cosines in about 36²/2 dimensions, of heads of rank 4 in a few less; five standard deviations, mean of three.
        assert abs(np.mean([pair.align for pair in track])) < 5 / 25 / math.sqrt(3), name
        assert np.mean([pair.rank_ratio for pair in track]) == pytest.approx(1, abs=0.03), name


def test_copied_layers_are_identical_in_all_that_they_read_and_write(stage):
    def copy(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
        if role.layer is None or role.bias:
            return value
        stored = twin.base.stored(role.part, 0)
        return stored if role.is_gain else 2.0**role.layer * stored

    copies = Twin(name="copies", preserves="", destroys="", change=copy).apply(stage("qwen3"), 0)
    found = followed(copies)
    assert all(pair.identical and pair.rank_ratio is None for track in found.pairs.values() for pair in track)
    assert all(pair.align == pytest.approx(1, abs=ROUNDING) for track in found.pairs.values() for pair in track)


def test_a_common_read_pattern_is_seen_in_every_reader_and_through_a_scramble(stage):
    """Readers take four fifths of their energy from four directions that all layers share."""

    def lean(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
        if role.part not in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj") or role.bias:
            return value
        shared = spectra.haar(value.shape[1], 4, twin.draw("shared"))
        mixing = torch.randn(len(value), 4, generator=twin.draw(*role.key), dtype=torch.float64)
        return value + 2 * value.double().norm() / mixing.norm() * mixing @ shared.mT

    base = FOLD_GAINS.apply(stage("llama"), 0)
    planted = Twin(name="lean", preserves="", destroys="", change=lean).apply(base, 0)
    for twin in (planted, SCRAMBLE.apply(planted, 1)):
        found = followed(twin)
        for name in READS:
            assert np.median([pair.align for pair in found.pairs[name]]) > 0.5, name
        assert abs(np.median([pair.align for pair in found.pairs["ov.write"]])) < 0.2


def test_mixed_layers_are_less_than_full_rank(stage):
    """Adjacent matrices at cosine 0.9: their rows fill fewer directions together than unrelated ones would."""
    plain, mixed = (followed(c) for c in (stage("llama"), adjacent_mixture(cos=0.9).apply(stage("llama"), 0)))
    for name in ("down.write", "ov.write"):
        least = [np.median([pair.rank_ratio for pair in found.pairs[name]]) for found in (plain, mixed)]
        assert least[1] < least[0] - 0.02, name


def test_the_walk_is_the_same_in_pieces_and_leaves_ranks_out_where_asked(stage):
    checkpoint = stage("qwen3")
    whole, none = followed(checkpoint), follow_grams(checkpoint, seed=0, device="cpu", spectra="none")
    parts = [followed(checkpoint.restricted(layers=range(i, i + 2))) for i in range(3)]
    assert set(whole.pairs) == set(GRAMS)
    for name, track in whole.pairs.items():
        assert track == [part.pairs[name][0] for part in parts]
        assert [pair.align for pair in none.pairs[name]] == [pair.align for pair in track]
        assert all(pair.eff_rank is None and pair.rank_ratio is None for pair in none.pairs[name])
    assert whole.scales == none.scales


def test_a_gram_costs_one_decomposition_a_layer_and_a_pair(stage, monkeypatch):
    """Each layer's spectrum serves both of its pairs."""
    calls = []
    real = spectra.eigenvalues
    monkeypatch.setattr(spectra, "eigenvalues", lambda matrix: calls.append(matrix.ndim) or real(matrix))
    followed(stage("llama"))
    layers, kinds = 4, len(GRAMS)
    assert calls.count(2) == kinds * (layers + layers - 1) and calls.count(3) == kinds * (layers - 1)
    assert pairs.HAAR_SIDE // 36 == len(Rotations(0, device="cpu")[36])
