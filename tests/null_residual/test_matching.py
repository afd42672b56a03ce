"""Matched neurons and heads: what is found, what exact maps cannot touch, and what chance gives."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.optimize import linear_sum_assignment

from analyses.null_residual import matching
from analyses.null_residual.matching import matched_cosines, product_cosines, score_neurons
from analyses.weights.architectures import MATRICES
from analyses.weights.canonical import unit_rows
from analyses.weights.checkpoint import open_checkpoint
from checks.maps.neurons import SCALE_NEURONS
from tests.strategies import seeds
from tests.tiny import tiny_checkpoint

ROUNDING = 1e-10  # exact maps in float64, conditions up to 1e3
HEADS, KV_HEADS, DIM, HIDDEN, NEURONS = 4, 2, 8, 32, 48  # of the tiny checkpoint
Weights = dict[str, torch.Tensor]


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int) -> torch.Tensor:
    return unit_rows(gaussian(*shape, seed=seed))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("matching")
    return {kind: tiny_checkpoint(root / kind, kind, tokenizer=False) for kind in ("llama", "qwen3")}


def rewritten(folder: Path, out: Path, edit: Callable[[Weights], None]) -> Path:
    """The checkpoint in float64, so that exact maps stay exact, with its weights edited in place."""
    shutil.copytree(folder, out)
    weights = {name: t.to(torch.float64) for name, t in load_file(out / "model.safetensors").items()}
    edit(weights)
    save_file({name: t.contiguous() for name, t in weights.items()}, out / "model.safetensors")
    return out


def matched(folder: Path) -> list[dict[str, float]]:
    return [pair.cos for pair in matched_cosines(open_checkpoint(str(folder)), seed=0, device="cpu")]


def name(layer: int, rest: str) -> str:
    return f"model.layers.{layer}.{rest}.weight"


# --- exact maps: each edits layer 1 and leaves the model's function as it was --------------------


def permute_neurons(w: Weights) -> None:
    order = torch.from_numpy(np.random.default_rng(1).permutation(NEURONS))
    for role in ("gate_proj", "up_proj"):
        w[name(1, f"mlp.{role}")] = w[name(1, f"mlp.{role}")][order]
    w[name(1, "mlp.down_proj")] = w[name(1, "mlp.down_proj")][:, order]


def scale_neurons(w: Weights) -> None:
    scale = gaussian(NEURONS, seed=2).exp() * gaussian(NEURONS, seed=3).sign()
    w[name(1, "mlp.up_proj")] *= scale[:, None]
    w[name(1, "mlp.down_proj")] /= scale


def _reorder_heads(w: Weights, heads: list[int], kv_heads: list[int]) -> None:
    rows = {"q_proj": (heads, HEADS), "k_proj": (kv_heads, KV_HEADS), "v_proj": (kv_heads, KV_HEADS)}
    for role, (order, count) in rows.items():
        key = name(1, f"self_attn.{role}")
        w[key] = w[key].view(count, DIM, HIDDEN)[order].flatten(0, 1)
    key = name(1, "self_attn.o_proj")
    w[key] = w[key].view(HIDDEN, HEADS, DIM)[:, heads].flatten(1)


def permute_heads_within_groups(w: Weights) -> None:
    _reorder_heads(w, [1, 0, 3, 2], [0, 1])


def permute_groups(w: Weights) -> None:
    _reorder_heads(w, [2, 3, 0, 1], [1, 0])


def map_values(w: Weights) -> None:
    """Any invertible map of each key/value head's values, undone by the heads that read it."""
    maps = torch.eye(DIM, dtype=torch.float64) + 0.2 * gaussian(KV_HEADS, DIM, DIM, seed=4)
    v, o = name(1, "self_attn.v_proj"), name(1, "self_attn.o_proj")
    w[v] = (maps @ w[v].view(KV_HEADS, DIM, HIDDEN)).flatten(0, 1)
    undo = torch.linalg.inv(maps).repeat_interleave(HEADS // KV_HEADS, dim=0)  # (head, dim, dim)
    w[o] = torch.einsum("ohd,hde->ohe", w[o].view(HIDDEN, HEADS, DIM), undo).flatten(1)


def scale_query_against_key(w: Weights) -> None:
    w[name(1, "self_attn.q_proj")] *= 4
    w[name(1, "self_attn.k_proj")] /= 4


def fold_gains(w: Weights) -> None:
    for norm, readers in {
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    }.items():
        for reader in readers:
            w[name(1, reader)] *= w[name(1, norm)]
        w[name(1, norm)].fill_(1)


def rotate_stream(w: Weights) -> None:
    """A rotation of the residual stream, the same in all layers, with all gains folded first."""
    q, _ = torch.linalg.qr(gaussian(HIDDEN, HIDDEN, seed=5))
    for layer in range(3):
        for norm, readers in {
            "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        }.items():
            for reader in readers:
                w[name(layer, reader)] = w[name(layer, reader)] * w[name(layer, norm)] @ q
            w[name(layer, norm)].fill_(1)
        for writer in ("self_attn.o_proj", "mlp.down_proj"):
            w[name(layer, writer)] = q.mT @ w[name(layer, writer)]


MAPS = (
    permute_neurons,
    scale_neurons,
    permute_heads_within_groups,
    permute_groups,
    map_values,
    scale_query_against_key,
    fold_gains,
    rotate_stream,
)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("edit", MAPS, ids=lambda edit: edit.__name__)
def test_matched_cosines_do_not_see_maps_that_leave_the_function_alone(folders, tmp_path, kind, edit):
    plain = matched(rewritten(folders[kind], tmp_path / "plain", lambda w: None))
    mapped = matched(rewritten(folders[kind], tmp_path / "mapped", edit))
    for before, after in zip(plain, mapped, strict=True):
        assert set(after) == {"gate", "up", "down", "qk", "vo"}
        assert after == pytest.approx(before, abs=ROUNDING)


def test_the_gains_of_query_and_key_norms_belong_to_the_head_metric(folders, tmp_path):
    """Moving a feature's gain from the query's norm to the key's leaves g, changing one alone does not."""

    def move(w: Weights) -> None:
        w[name(1, "self_attn.q_norm")][0] *= 8
        w[name(1, "self_attn.k_norm")][0] /= 8

    def change(w: Weights) -> None:
        w[name(1, "self_attn.q_norm")][0] *= 8

    plain, moved, changed = (
        matched(rewritten(folders["qwen3"], tmp_path / f"{i}", edit))[0]
        for i, edit in enumerate((lambda w: None, move, change))
    )
    assert moved == pytest.approx(plain, abs=ROUNDING)
    assert abs(changed["qk"] - plain["qk"]) > 1e-3


# --- known answers ------------------------------------------------------------------------------


def copy_layer(w: Weights) -> None:
    """Layer 1 becomes layer 0."""
    for key in [key for key in w if ".layers.0." in key]:
        w[key.replace(".layers.0.", ".layers.1.")] = w[key].clone()


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_copy_of_a_layer_is_found_through_every_exact_map_at_once(folders, tmp_path, kind):
    def hidden_copy(w: Weights) -> None:
        copy_layer(w)
        for edit in MAPS:
            edit(w)

    first, second = matched(rewritten(folders[kind], tmp_path / "copy", hidden_copy))
    assert first == pytest.approx(dict.fromkeys(first, 1.0), abs=ROUNDING)
    assert max(abs(value) for value in second.values()) < 0.5  # layer 2 is another layer


@pytest.mark.parametrize("cosine", [0.5, 0.8])
def test_a_planted_likeness_is_measured_at_its_size_through_permutation_and_scaling(cosine):
    neurons, hidden = 256, 128
    order = torch.from_numpy(np.random.default_rng(0).permutation(neurons))
    signs = gaussian(neurons, seed=9).sign()[:, None]
    cosines = {}
    for i, role in enumerate(("gate", "up", "down")):
        old, noise = unit(neurons, hidden, seed=i), gaussian(neurons, hidden, seed=10 + i)
        noise = unit_rows(noise - (noise * old).sum(-1, keepdim=True) * old)
        new = cosine * old + math.sqrt(1 - cosine**2) * noise
        cosines[role] = old @ ((new if role == "gate" else signs * new)[order]).mT
    assert score_neurons(cosines) == pytest.approx(dict.fromkeys(cosines, cosine), abs=1e-9)


def test_independent_layers_score_zero_held_out_and_well_above_the_limit_on_their_own_matching():
    neurons, hidden = 256, 128
    cosines = {
        role: unit(neurons, hidden, seed=i) @ unit(neurons, hidden, seed=20 + i).mT
        for i, role in enumerate(("gate", "up", "down"))
    }
    sampling = 4 / math.sqrt(neurons * hidden)  # four standard deviations of a mean of 256 cosines
    for role, value in score_neurons(cosines).items():
        assert abs(value) < sampling, role
    own = cosines["gate"].numpy()
    assert own[linear_sum_assignment(own, maximize=True)].mean() == pytest.approx(0.23, abs=0.01)
    pooled = (sum(cosines.values()) / 3).numpy()
    assert pooled[linear_sum_assignment(pooled, maximize=True)].mean() == pytest.approx(0.14, abs=0.01)


def test_a_fresh_model_scores_zero_and_so_does_its_chance_level(folders):
    for pair in matched_cosines(open_checkpoint(str(folders["llama"])), seed=0, device="cpu"):
        for role, units in {"gate": NEURONS, "up": NEURONS, "down": NEURONS, "qk": HEADS, "vo": HEADS}.items():
            # Cosines of maps of rank 8 in 32×32 spread by about 1/32, of neurons by 1/√32.
            spread = 1 / math.sqrt(HIDDEN) if units == NEURONS else 1 / HIDDEN
            assert abs(pair.cos[role]) < 5 * spread / math.sqrt(units), role
            assert abs(pair.chance[role]) < 5 * spread / math.sqrt(units), role


def test_likeness_within_a_neuron_lets_a_lucky_match_carry_over_and_the_chance_level_says_so():
    """Independent layers whose neurons read and write one direction: a match on gate is one on up."""
    neurons, hidden = 256, 128
    scramble = matching.Scramble.draw(hidden, 0, device="cpu")
    old, new = unit(neurons, hidden, seed=1), unit(neurons, hidden, seed=2)
    stored = score_neurons(dict.fromkeys(("gate", "up", "down"), old @ new.mT))
    chance = score_neurons(dict.fromkeys(("gate", "up", "down"), old @ scramble(new).mT))
    for role in ("up", "down"):
        assert stored[role] > 0.1
        assert chance[role] == pytest.approx(stored[role], abs=0.03)  # sampling error of mean and matching


def test_scrambling_keeps_every_cosine_inside_a_layer():
    rows = gaussian(6, HIDDEN)
    scrambled = matching.Scramble.draw(HIDDEN, 3, device="cpu")(rows)
    assert torch.allclose(scrambled @ scrambled.mT, rows @ rows.mT, rtol=0, atol=1e-12)
    assert not torch.allclose(scrambled, rows)


# --- comparison with dense maps -----------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), seeds)
def test_head_cosines_are_those_of_the_dense_maps(kv_heads, group, dim, hidden, seed):
    layers = [
        (gaussian(kv_heads, dim, hidden, seed=seed + i), gaussian(kv_heads * group, dim, hidden, seed=seed + i + 1))
        for i in (0, 2)
    ]
    dense = [(left.repeat_interleave(group, dim=0).mT @ right).flatten(1) for left, right in layers]  # (head, D·D)
    cosines, *alive = product_cosines(*layers)
    assert all(flags.all() for flags in alive)
    assert torch.allclose(cosines, unit_rows(dense[0]) @ unit_rows(dense[1]).mT, rtol=0, atol=1e-9)


# --- dead units ---------------------------------------------------------------------------------


def test_a_dead_neuron_or_head_is_left_out_of_the_match(folders, tmp_path):
    def kill(w: Weights) -> None:
        copy_layer(w)
        w[name(1, "mlp.down_proj")][:, 5] = 0
        w[name(1, "self_attn.o_proj")][:, :DIM] = 0

    first = matched(rewritten(folders["llama"], tmp_path / "dead", kill))[0]
    # Layer 0 keeps the dead units' twins, which then have no partner or a poor one.
    assert first == pytest.approx(dict.fromkeys(first, 1.0), abs=ROUNDING)


def test_a_block_without_a_living_unit_has_no_matched_cosine(folders, tmp_path):
    def kill(w: Weights) -> None:
        w[name(1, "mlp.down_proj")].zero_()

    first, second = matched(rewritten(folders["llama"], tmp_path / "dead", kill))
    assert (first["gate"], first["up"], first["down"]) == (None, None, None)
    assert second["gate"] is None
    assert first["qk"] is not None


def test_of_a_wide_layer_the_neurons_with_the_longest_rows_are_matched(folders, tmp_path, monkeypatch):
    whole = matched(rewritten(folders["llama"], tmp_path / "whole", lambda w: None))
    monkeypatch.setattr(matching, "NEURONS", 10)

    def copy(w: Weights) -> None:
        copy_layer(w)
        permute_neurons(w)

    plain = matched(rewritten(folders["llama"], tmp_path / "plain", lambda w: None))
    permuted = matched(rewritten(folders["llama"], tmp_path / "permuted", permute_neurons))
    assert permuted[1] == pytest.approx(plain[1], abs=ROUNDING)
    assert plain[1]["gate"] != pytest.approx(whole[1]["gate"], abs=ROUNDING)
    first = matched(rewritten(folders["llama"], tmp_path / "copy", copy))[0]
    assert first["gate"] == pytest.approx(1, abs=ROUNDING)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_which_neurons_of_a_wide_layer_are_matched_no_scale_decides(tmp_path, monkeypatch, kind):
    """Behind a relu an up row's length is free, and only its product with the down column's length is the model's."""
    monkeypatch.setattr(matching, "NEURONS", 10)
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, kind, tokenizer=False)))
    twin = SCALE_NEURONS.apply(checkpoint, 0)
    lengths = [c.weight("up_proj", 0).norm(dim=1).argsort(descending=True)[:10] for c in (checkpoint, twin)]
    assert not torch.equal(*lengths)
    before, after = (matched_cosines(c, seed=0, device="cpu") for c in (checkpoint, twin))
    for pair, other in zip(before, after, strict=True):
        assert other.cos == pytest.approx(pair.cos, abs=ROUNDING)


def test_float32_cosines_match_as_float64_ones_do_to_the_stated_error(tmp_path, monkeypatch):
    folder = tiny_checkpoint(tmp_path / "model", "qwen3", tokenizer=False, hidden_size=64, intermediate_size=400)
    checkpoint = open_checkpoint(str(folder))
    exact = matched_cosines(checkpoint, seed=0, device="cpu")
    monkeypatch.setattr(matching, "FLOAT32_HIDDEN", 1)
    rounded = matched_cosines(checkpoint, seed=0, device="cpu")
    assert rounded != exact
    for pair, other in zip(exact, rounded, strict=True):
        assert other.cos == pytest.approx(pair.cos, abs=1e-4)
        assert other.chance == pytest.approx(pair.chance, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_heads_match_in_float32_whatever_the_size_of_weights(tmp_path, monkeypatch, scale):
    """Four such weights multiplied leave float32's range."""

    def resize(weights):
        for name, weight in weights.items():
            if "self_attn" in name and weight.ndim == 2:
                weight.mul_(scale)

    folder = tiny_checkpoint(tmp_path / "model", "llama", tokenizer=False, hidden_size=64)
    monkeypatch.setattr(matching, "FLOAT32_HIDDEN", 1)
    plain = matched_cosines(open_checkpoint(str(folder)), seed=0, device="cpu")
    scaled = matched_cosines(open_checkpoint(str(rewritten(folder, tmp_path / "scaled", resize))), seed=0, device="cpu")
    for pair, other in zip(plain, scaled, strict=True):
        assert other.cos == pytest.approx(pair.cos, abs=2e-6)  # float32 weights rounded once more, and float32 products
        assert other.chance == pytest.approx(pair.chance, abs=2e-6)


def test_matched_units_carry_their_gains_also_where_gains_are_not_compared(tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, "qwen3", tokenizer=False)))
    matrices = checkpoint.restricted(families=MATRICES)
    assert matched_cosines(matrices, seed=0, device="cpu") == matched_cosines(checkpoint, seed=0, device="cpu")
