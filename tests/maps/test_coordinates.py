"""An exact map changes the parameters and not the function; where it would, it says why not."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.maps import catalogue
from checks.maps.catalogue import LOSSLESS, MAPS, SCRAMBLE
from checks.maps.exact import EXACT, UP_TO_EPS
from checks.maps.planes import ROTATE_PLANES, SCALE_HEADS
from checks.maps.stream import PERMUTE_STREAM, ROTATE_FOLDED_STREAM, ROTATE_STREAM
from checks.twins.twins import save
from tests.float64_logits import float64_model, logits, moved
from tests.tiny import tiny_checkpoint, tiny_model

MODELS = {
    "llama": ("llama", {}),
    "llama, tied, with every bias": ("llama", dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3, tied, with biases": ("qwen3", dict(attention_bias=True, tie_word_embeddings=True)),
    "gpt2": ("gpt2", {}),
    "gpt2, untied": ("gpt2", dict(tie_word_embeddings=False)),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox, sequential": ("gpt_neox, sequential", {}),
    "opt": ("opt", {}),
    "gemma2": ("gemma2", {}),
}
SEED = 5


def match_gains(folder, planes=(0, 2)) -> None:
    """Make the q/k-norm gains of a checkpoint of head dimension 8 match in some rotary planes of layer 1."""

    def change(tensors):
        for part in ("q_norm", "k_norm"):
            gain = tensors[f"model.layers.1.self_attn.{part}.weight"]
            for plane in planes:
                gain[plane + 4] = gain[plane]

    edit(folder, change)


def edit(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Variant → (checkpoint, its model in float64, its logits); made once."""
    made = {}

    def build(variant):
        if variant not in made:
            model_type, sizes = MODELS[variant]
            folder = tiny_checkpoint(tmp_path_factory.mktemp("m"), model_type, tokenizer=False, layers=4, **sizes)
            model = float64_model(folder)
            made[variant] = open_checkpoint(str(folder)), model, logits(model)
        return made[variant]

    return build


def changed(twin: Checkpoint, base: Checkpoint) -> set[str]:
    return {name for name in base.files if not torch.equal(twin.tensor(name).double(), base.tensor(name).double())}


def undefined(checkpoint: Checkpoint) -> set:
    """The maps that the mathematics does not allow for a model of MODELS."""
    kind, tied = checkpoint.config["model_type"], checkpoint.config.get("tie_word_embeddings", True)
    rms, rotary = kind not in ("gpt2", "gpt_neox", "opt"), kind not in ("gpt2", "opt")
    answers = {
        SCALE_HEADS: not checkpoint.has_qk_norm,
        catalogue.TURN_PLANES: not rotary,
        catalogue.SCALE_PLANES: not rotary,
        ROTATE_PLANES: checkpoint.has_qk_norm or not rotary,  # random gains match in no plane
        catalogue.PERMUTE_QUERIES: kind not in ("gpt2", "gpt_neox", "opt"),
        catalogue.MIX_QUERIES: kind not in ("gpt2", "gpt_neox", "opt"),
        catalogue.SHIFT_KEYS: kind not in ("gpt2", "gpt_neox", "opt"),
        catalogue.SCALE_NEURONS: kind in ("gpt2", "gpt_neox"),  # GELU
        catalogue.PERMUTE_HEADS: checkpoint.shape.heads == checkpoint.shape.kv_heads,
        catalogue.WRITE_CONSTANT: rms,
        catalogue.SCALE_WRITES: kind != "gemma2",
        ROTATE_STREAM: tied or not rms or kind == "gemma2",
    }
    return {map for map, is_undefined in answers.items() if is_undefined}


@pytest.mark.parametrize("variant", MODELS)
@pytest.mark.parametrize("map", [*MAPS, SCRAMBLE], ids=lambda m: m.name)
def test_a_map_changes_weights_and_leaves_the_logits_alone(stage, map, variant):
    checkpoint, model, before = stage(variant)
    if reason := map.undefined(checkpoint):
        assert map in undefined(checkpoint), reason
        return
    assert map not in undefined(checkpoint)
    twin = map.apply(checkpoint, SEED)
    after = logits(model, twin)
    assert changed(twin, checkpoint)
    # The map's own bound: rounding, or the eps of the q/k norms.
    assert moved(after, before) <= map.tolerance(checkpoint)
    assert map.tolerance(checkpoint) in (EXACT, UP_TO_EPS)


@pytest.mark.parametrize("whole", [catalogue.MIX_VALUES, PERMUTE_STREAM], ids=lambda m: m.name)
def test_half_a_map_moves_the_logits(stage, whole):
    """The comparison above sees a map that is not exact."""
    checkpoint, model, before = stage("llama")
    half = dataclasses.replace(
        whole, change=lambda twin, role, value: value if role.part == "o_proj" else whole.change(twin, role, value)
    )
    assert moved(logits(model, half.apply(checkpoint, SEED)), before) > 1e-2


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "gpt_neox", "opt"])
@pytest.mark.parametrize("map", [*LOSSLESS, SCRAMBLE, catalogue.RAMP_INPUT_GAIN], ids=lambda m: m.name)
def test_a_lossless_map_keeps_every_mantissa_in_bfloat16(tmp_path_factory, model_type, map):
    folder = tmp_path_factory.mktemp("bf16")
    tiny_model(model_type, layers=4).to(torch.bfloat16).save_pretrained(folder)
    checkpoint = open_checkpoint(str(folder))
    if map.undefined(checkpoint):
        assert map in undefined(checkpoint)
        return
    twin = map.apply(checkpoint, SEED)
    assert map.lossless and changed(twin, checkpoint)
    for name in checkpoint.files:
        before, after = checkpoint.tensor(name), twin.tensor(name)
        assert after.dtype == torch.bfloat16, name
        mantissas = [torch.frexp(t.float()).mantissa.abs().flatten().sort().values for t in (before, after)]
        assert torch.equal(*mantissas), name


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_the_scramble_of_bfloat16_weights_leaves_the_logits_alone(tmp_path, model_type):
    tiny_model(model_type).to(torch.bfloat16).save_pretrained(tmp_path)
    checkpoint, model = open_checkpoint(str(tmp_path)), float64_model(tmp_path)
    before = logits(model)
    assert moved(logits(model, SCRAMBLE.apply(checkpoint, SEED)), before) <= SCRAMBLE.tolerance(checkpoint)


@pytest.mark.parametrize("map", [m for m in MAPS if not m.lossless], ids=lambda m: m.name)
def test_what_the_stored_dtype_cannot_hold_comes_out_in_float64(tmp_path, map):
    kind = "gpt_neox" if map.undefined(open_checkpoint(str(tiny_checkpoint(tmp_path / "llama", "llama")))) else "llama"
    tiny_model(kind).to(torch.bfloat16).save_pretrained(tmp_path)
    checkpoint, model = open_checkpoint(str(tmp_path)), float64_model(tmp_path)
    before = logits(model)
    twin = map.apply(checkpoint, SEED)
    assert {twin.tensor(name).dtype for name in changed(twin, checkpoint)} >= {torch.float64}
    assert moved(logits(model, twin), before) <= EXACT


def test_a_small_float16_weight_loses_no_bit(tmp_path):
    """float16 cannot halve its subnormals; a tensor that holds some is widened instead of rounded."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0] = 3 * 2.0**-24
    model.to(torch.float16).save_pretrained(tmp_path)
    checkpoint, model = open_checkpoint(str(tmp_path)), float64_model(tmp_path)
    before = logits(model)
    twin = SCRAMBLE.apply(checkpoint, SEED)
    assert twin.tensor("model.layers.0.mlp.down_proj.weight").dtype == torch.float64
    assert moved(logits(model, twin), before) <= EXACT


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_the_librarys_model_loaded_from_a_saved_twin_gives_the_same_logits(tmp_path, model_type):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path / "base", model_type)))
    twin = catalogue.compose("both", "", *LOSSLESS[:2], catalogue.MIX_VALUES).apply(checkpoint, SEED)
    folder = save(twin, tmp_path / "twin")
    reopened = open_checkpoint(str(folder))
    for name in checkpoint.files:
        assert torch.equal(reopened.tensor(name), twin.tensor(name)), name
    before = logits(float64_model(tmp_path / "base"))
    assert moved(logits(float64_model(folder)), before) <= (UP_TO_EPS if model_type == "qwen3" else EXACT)
    assert (folder / "tokenizer.json").read_bytes() == (tmp_path / "base" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("variant", ["llama", "qwen3"])
def test_the_input_gain_can_double_every_third_layer_without_a_trace_in_the_logits(tmp_path, variant):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, variant, tokenizer=False, layers=7)))
    model = float64_model(tmp_path)
    before = logits(model)
    twin = catalogue.RAMP_INPUT_GAIN.apply(checkpoint, 0)
    for layer, factor in enumerate([1, 1, 1, 2, 2, 2, 4]):
        assert torch.equal(twin.weight("input_ln", layer), factor * checkpoint.weight("input_ln", layer))
    assert moved(logits(model, twin), before) <= catalogue.RAMP_INPUT_GAIN.tolerance(checkpoint)


def test_a_composition_is_its_parts_one_after_the_other(stage):
    checkpoint, _, _ = stage("qwen3")
    first, second = catalogue.PERMUTE_NEURONS, catalogue.SCALE_NEURONS
    both = catalogue.compose("both", "", first, second).apply(checkpoint, SEED)
    by_hand = second.apply(first.apply(checkpoint, SEED), SEED)
    assert all(torch.equal(both.tensor(name), by_hand.tensor(name)) for name in checkpoint.files)
    assert not changed(both, by_hand) and changed(both, checkpoint)
    assert catalogue.compose("both", "", first, second).lossless


def test_a_map_depends_on_its_seed_only(stage):
    checkpoint, _, _ = stage("llama")
    one, again, other = (SCRAMBLE.apply(checkpoint, seed) for seed in (1, 1, 2))
    assert not changed(one, again) and changed(one, other)


def test_folding_leaves_gains_of_one_and_needs_no_seed(stage):
    checkpoint, _, _ = stage("qwen3")
    twin = catalogue.FOLD_GAINS.apply(checkpoint, 0)
    for family in ("input_ln", "post_attn_ln"):
        assert (twin.weight(family, 1) == 1).all()
    assert (twin.tensor("model.norm.weight") == 1).all()
    assert torch.equal(twin.weight("q_norm", 1), checkpoint.weight("q_norm", 1))


def test_planes_turn_only_where_the_gains_of_queries_and_keys_match(tmp_path):
    folder = tiny_checkpoint(tmp_path, "qwen3", tokenizer=False)
    assert "match in no rotary plane" in ROTATE_PLANES.undefined(open_checkpoint(str(folder)))
    match_gains(folder)
    checkpoint, model = open_checkpoint(str(folder)), float64_model(folder)
    before = logits(model)
    twin = ROTATE_PLANES.apply(checkpoint, SEED)
    assert changed(twin, checkpoint) == {f"model.layers.1.self_attn.{p}_proj.weight" for p in "qk"}
    rows = (twin.head_blocks("k_proj", 1) != checkpoint.head_blocks("k_proj", 1)).any(-1)  # (kv_head, head_dim)
    assert rows.tolist() == 2 * [[True, False, True, False] * 2]
    assert moved(logits(model, twin), before) <= EXACT


def test_a_tied_model_with_a_uniform_final_gain_can_be_rotated(tmp_path):
    folder = tiny_checkpoint(tmp_path, "llama", tokenizer=False, tie_word_embeddings=True)
    refusal = ROTATE_STREAM.undefined(open_checkpoint(str(folder)))
    assert "final norm's gain is not uniform" in refusal and "tied" in refusal
    edit(folder, lambda tensors: tensors["model.norm.weight"].fill_(1.25))
    checkpoint, model = open_checkpoint(str(folder)), float64_model(folder)
    before = logits(model)
    twin = ROTATE_STREAM.apply(checkpoint, SEED)
    assert "model.embed_tokens.weight" in changed(twin, checkpoint)
    assert moved(logits(model, twin), before) <= EXACT


def test_a_stream_is_not_rotated_through_gains_that_differ(stage):
    checkpoint, _, _ = stage("llama")
    assert "fold it first" in ROTATE_FOLDED_STREAM.undefined(checkpoint)
    with pytest.raises(ValueError, match="not uniform"):
        ROTATE_FOLDED_STREAM.apply(checkpoint, 0)


def test_heads_that_are_alone_in_their_group_and_single_groups_are_not_permuted(tmp_path):
    one_each = open_checkpoint(str(tiny_checkpoint(tmp_path / "a", tokenizer=False, num_key_value_heads=4)))
    assert "one query head" in catalogue.PERMUTE_HEADS.undefined(one_each)
    single = open_checkpoint(str(tiny_checkpoint(tmp_path / "b", tokenizer=False, num_key_value_heads=1)))
    assert "one key/value head" in catalogue.PERMUTE_GROUPS.undefined(single)
    assert SCRAMBLE.undefined(single) is None
    assert "too few for a ramp" in catalogue.RAMP_INPUT_GAIN.undefined(single)


@pytest.mark.parametrize("map", [*MAPS, SCRAMBLE], ids=lambda m: m.name)
def test_no_map_is_claimed_for_what_is_not_known(tmp_path, map):
    folder = tiny_checkpoint(tmp_path, "llama", tokenizer=False)
    checkpoint = open_checkpoint(str(folder))
    other = dataclasses.replace(checkpoint, config={**checkpoint.config, "model_type": "gptj"})
    assert map.undefined(other) == "no exact maps known here for model_type gptj"
    edit(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.sinks": torch.zeros(4)}))
    assert "self_attn.sinks" in map.undefined(open_checkpoint(str(folder)))
    with pytest.raises(ValueError, match="sinks"):
        map.apply(open_checkpoint(str(folder)), 0)


def test_names_and_sentences_are_told_apart():
    assert len({m.name for m in [*MAPS, SCRAMBLE]}) == len({m.sentence for m in [*MAPS, SCRAMBLE]}) == len(MAPS) + 1
    lossy = {m.name for m in MAPS if not m.lossless}
    assert lossy == {"gain folding", "value mixing", "plane rotation", "stream rotation"} | {
        "query mixing",
        "key shift",
        "constant writes",
    }
