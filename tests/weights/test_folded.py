"""Folded readers and the scales of heads: dense matrices by hand, and every exact map of each kind of model."""

import math

import numpy as np
import pytest
import torch

from analyses.weights import planes
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from analyses.weights.folded import folded_readers, head_scales, scales_absent
from checks.maps.catalogue import MAPS, SCRAMBLE
from checks.maps.exact import EXACT
from checks.maps.names import STREAM
from tests.maps.test_coordinates import match_gains
from tests.tiny import TINY, tiny_checkpoint

ROUNDING = 1e-12  # of sums of some hundred float64 products, relative to the largest
BY_EPS = 1e-4  # where a norm's eps stands between, as the maps themselves promise
KINDS = ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt", "gemma2")


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).abs().max()) <= ROUNDING * float(expected.abs().max())


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = {}

    def build(name: str) -> Checkpoint:
        if name not in made:
            options = {} if TINY[name][0] in ("bert", "roberta") else {"tie_word_embeddings": False}
            folder = tiny_checkpoint(tmp_path_factory.mktemp("m"), name, tokenizer=False, layers=4, **options)
            if name == "qwen3":
                match_gains(folder)
            made[name] = open_checkpoint(str(folder))
        return made[name]

    return build


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "olmo2", "phi, q/k norms"])
def test_normalised_states_meet_in_the_folded_readers_as_in_the_model(stage, name):
    """Logits of states behind a norm without gain, biases left out, up to each head's norm under q/k norms."""
    checkpoint, layer = stage(name), 1
    shape, record = checkpoint.shape, checkpoint.architecture
    states = torch.randn(9, shape.hidden, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if record.layer_norm:
        states = states - states.mean(-1, keepdim=True)
    read = states * checkpoint.weight("input_ln", layer) if "input_ln" in checkpoint.families else states
    sides = {}
    for family, norm in (("q_proj", "q_norm"), ("k_proj", "k_norm")):
        weight = checkpoint.weight(family, layer)
        values = (read @ weight.mT).unflatten(1, (-1, shape.head_dim))  # (token, head, head_dim)
        if checkpoint.has_qk_norm:
            values = values - values.mean(-1, keepdim=True) if record.qk_layer_norm else values
            values = values * checkpoint.head_gains(norm, layer)
        sides[family] = values.repeat_interleave(shape.heads // values.shape[1], 1)
    expected = torch.einsum("thd,shd->hts", sides["q_proj"], sides["k_proj"])
    keys, queries, _ = folded_readers(checkpoint, layer, device="cpu")
    keys = keys.repeat_interleave(shape.heads // shape.kv_heads, 0)
    found = torch.einsum("hdi,ti,hdj,sj->hts", queries, states, keys, states)
    if checkpoint.has_qk_norm:  # then a head's logits are known up to one factor
        found, expected = (x / x.norm(dim=(1, 2), keepdim=True) for x in (found, expected))
    assert close(found, expected)


def test_under_norms_of_queries_and_keys_a_folded_head_has_the_size_of_their_gains_alone(stage):
    checkpoint = stage("qwen3")
    keys, queries, _ = folded_readers(checkpoint, 2, device="cpu")
    for rows, norm in ((keys, "k_norm"), (queries, "q_norm")):
        bare = rows / checkpoint.weight(norm, 2)[:, None]
        assert close(bare.norm(dim=(1, 2)), torch.ones(len(rows)).double())


@pytest.mark.parametrize("name", KINDS)
def test_the_scale_of_heads_is_that_of_dense_matrices_over_many_distances(stage, name):
    checkpoint = stage(name)
    found, shape = head_scales(checkpoint), checkpoint.shape
    for layer in range(shape.layers):
        keys, queries, turns = folded_readers(checkpoint, layer, device="cpu")
        keys = keys.repeat_interleave(shape.heads // shape.kv_heads, 0)
        norms = planes.norms(planes.parts(keys, queries, turns))
        assert found["qk"][layer] == pytest.approx(float(norms.square().mean().sqrt()), rel=ROUNDING)
        still = (keys.mT @ queries).square().sum((1, 2))
        if not turns.frequencies:
            assert close(norms.square(), still)
        if "ov" in found:
            values = checkpoint.head_blocks("v_proj", layer)
            if "input_ln" in checkpoint.families:
                values = values * checkpoint.weight("input_ln", layer)
            output = checkpoint.weight("o_proj", layer).unflatten(1, (-1, shape.head_dim)).movedim(1, 0)
            if checkpoint.architecture.layer_norm:
                values, output = (x - x.mean(axis, keepdim=True) for x, axis in ((values, 2), (output, 1)))
            dense = output @ values.repeat_interleave(shape.heads // shape.kv_heads, 0)
            expected = math.sqrt(float(dense.square().sum((1, 2)).mean()))
            assert found["ov"][layer] == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("map", [*MAPS, SCRAMBLE], ids=lambda m: m.name)
def test_no_exact_map_moves_the_scale_of_heads(stage, map, name):
    checkpoint = stage(name)
    if map.undefined(checkpoint):
        return
    bound = 1e-9 if map.tolerance(checkpoint) <= EXACT else BY_EPS
    before, after = head_scales(checkpoint), head_scales(map.apply(checkpoint, 3))
    assert before.keys() == after.keys()
    for track in before:
        # A scale of the whole stream is one factor of all layers' values and outputs.
        common = after[track][0] / before[track][0] if map.name == STREAM and track == "ov" else 1.0
        np.testing.assert_allclose(after[track], common * before[track], rtol=bound, atol=0, err_msg=track)


@pytest.mark.parametrize("name", TINY)
def test_every_family_has_each_track_or_a_reason(stage, name):
    checkpoint = stage(name)
    found, absent = head_scales(checkpoint), scales_absent(checkpoint)
    assert found.keys() | absent.keys() == {"qk", "ov"} and not found.keys() & absent.keys()
    assert all(len(track) == 4 and (track > 0).all() for track in found.values())
    behind = checkpoint.architecture.post_norm or "attn_out_ln" in checkpoint.places
    assert ("ov" in absent) == behind and ("qk" in absent) == checkpoint.architecture.post_norm


def test_a_track_whose_families_were_left_out_has_that_reason(stage):
    view = stage("llama").restricted(families=("q_proj", "k_proj", "v_proj"))
    assert set(head_scales(view)) == {"qk"}
    assert "o_proj" in scales_absent(view)["ov"]
