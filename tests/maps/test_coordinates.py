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
from checks.maps.ramps import RAMP_ALL
from checks.maps.stream import PERMUTE_STREAM, ROTATE_FOLDED_STREAM, ROTATE_STREAM, SCALE_STREAM
from checks.twins.twins import save
from tests.float64_logits import float64_model, logits, moved
from tests.tiny import TINY, tiny_checkpoint, tiny_model

UNTIED = dict(tie_word_embeddings=False)
MODELS: dict[str, tuple[str, dict]] = {name: (name, {}) for name in TINY} | {
    "llama, tied, with every bias": ("llama", dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "qwen3, tied, with biases": ("qwen3", dict(attention_bias=True, tie_word_embeddings=True)),
    "qwen3_moe, not renormalised": ("qwen3_moe", dict(norm_topk_prob=False)),
    "olmo, clipped": ("olmo", dict(clip_qkv=0.5)),
    "opt, projected": ("opt", dict(word_embed_proj_dim=16)),
    "bloom, other residual": ("bloom", dict(apply_residual_connection_post_layernorm=True)),
    **{f"{name}, untied": (name, UNTIED) for name in ("gemma", "gemma2", "smollm3", "gpt2", "opt", "bloom")},
}
"""Every form of the architecture table, and some forms that take a map away or give one."""

LOUD = {"opt", "olmo"}
"""Their eps of 1e-5 is no entry of the config: an embedding 8 times larger makes it small beside what the norms see."""
SMALL_EPS = dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"), 1e-6)
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
            form, sizes = MODELS[variant]
            sizes = SMALL_EPS | sizes
            folder = tiny_checkpoint(tmp_path_factory.mktemp("m"), form, tokenizer=False, layers=4, **sizes)
            if TINY[form][0] in LOUD:
                edit(folder, lambda tensors: [t.mul_(8) for name, t in tensors.items() if "embed_" in name])
            model = float64_model(folder)
            made[variant] = open_checkpoint(str(folder)), model, logits(model)
        return made[variant]

    return build


def changed(twin: Checkpoint, base: Checkpoint) -> set[str]:
    return {name for name in base.files if not torch.equal(twin.tensor(name).double(), base.tensor(name).double())}


ALIBI = {"bloom", "falcon, sequential"}
RELU, UNGATED = {"opt"}, {"phi", "gpt2", "gptj", "gpt_neox", "opt", "bloom", "falcon", "bert", "roberta"}
LAYER_NORM = UNGATED | {"olmo", "stablelm"}
TIED = {"gemma", "gemma2", "gemma3", "smollm3", "gpt2", "opt", "bloom", "bert", "roberta"}  # unless the config unties
NORMS_OF_HEADS = {"qwen3", "qwen3_moe", "gemma3", "olmo2", "stablelm", "phi, q/k norms"}  # forms, by their first words
FREE_DIMENSIONS = {"smollm3", "stablelm, parallel", "phi", "gpt2", "gptj", "gpt_neox", "opt", "bloom"}
FREE_DIMENSIONS |= {"falcon, sequential"}


def undefined(variant: str) -> set:
    """The maps that the mathematics does not allow for one of MODELS, by what its paper and its code say of it."""
    form, sizes = MODELS[variant]
    kind = TINY[form][0].removesuffix("_text")
    given = TINY[form][1] | sizes
    if variant == "bloom, other residual":
        return {*MAPS, SCRAMBLE}
    qk_norm = form in NORMS_OF_HEADS or (kind in NORMS_OF_HEADS and form != "stablelm, parallel")
    centred = qk_norm and kind in ("stablelm", "phi")
    rotary = kind not in ("gpt2", "opt", "bloom", "bert", "roberta") and form not in ALIBI
    free = not qk_norm and (form in FREE_DIMENSIONS or kind in FREE_DIMENSIONS or kind in ("bert", "roberta"))
    post_norm = kind in ("bert", "roberta") or form == "opt, post-norm"
    behind = kind in ("gemma2", "gemma3", "olmo2")
    tied = given.get("tie_word_embeddings", kind in TIED)
    grouped = given.get("num_key_value_heads", 4) < 4 or form in ("falcon", *(f for f in TINY if "new decoder" in f))
    experts = kind in ("mixtral", "qwen3_moe")
    biases = given.get("attention_bias") or given.get("bias") or kind in ("phi", "gpt2", "gpt_neox", "opt", "bloom")
    biases = biases or kind in ("bert", "roberta")
    clipped = variant == "olmo, clipped"
    answers = {
        catalogue.RESCALE_GAINS: post_norm or kind == "olmo",
        catalogue.FOLD_GAINS: post_norm or kind == "olmo",
        catalogue.SCALE_INPUT_GAIN: post_norm or kind in ("olmo", "olmo2"),
        catalogue.RAMP_INPUT_GAIN: post_norm or kind in ("olmo", "olmo2"),
        catalogue.PERMUTE_VALUES: clipped,
        catalogue.MIX_VALUES: clipped,
        catalogue.SHIFT_VALUES: not biases,
        SCALE_HEADS: not qk_norm,
        catalogue.TURN_PLANES: not rotary or centred or clipped,
        catalogue.SCALE_PLANES: not rotary or clipped,
        ROTATE_PLANES: qk_norm or not rotary or clipped,  # random gains match in no plane
        catalogue.PERMUTE_QUERIES: not free,
        catalogue.MIX_QUERIES: not free,
        catalogue.SHIFT_KEYS: not free or not (biases or form == "stablelm, with biases"),
        catalogue.SCALE_NEURONS: kind in UNGATED - RELU,
        catalogue.PERMUTE_HEADS: not grouped or form in ALIBI,
        catalogue.PERMUTE_GROUPS: form in ALIBI or form == "falcon",
        catalogue.PERMUTE_EXPERTS: not experts,
        catalogue.SHIFT_ROUTER: not experts,
        catalogue.WRITE_CONSTANT: kind not in LAYER_NORM,
        catalogue.SCALE_WRITES: not behind,
        SCALE_STREAM: post_norm,
        ROTATE_STREAM: (tied and variant != "opt, projected") or behind or post_norm or kind == "bloom",
    }
    return {map for map, is_undefined in answers.items() if is_undefined}


@pytest.mark.parametrize("variant", MODELS)
@pytest.mark.parametrize("map", [*MAPS, SCRAMBLE], ids=lambda m: m.name)
def test_a_map_changes_weights_and_leaves_the_logits_alone(stage, map, variant):
    checkpoint, model, before = stage(variant)
    if reason := map.undefined(checkpoint):
        assert map in undefined(variant), reason
        return
    assert map not in undefined(variant)
    twin = map.apply(checkpoint, SEED)
    after = logits(model, twin)
    assert changed(twin, checkpoint)
    # The map's own bound: rounding, or the eps of a norm that takes a scale off.
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
@pytest.mark.parametrize("map", [*LOSSLESS, SCRAMBLE, catalogue.RAMP_INPUT_GAIN, SCALE_STREAM], ids=lambda m: m.name)
def test_a_lossless_map_keeps_every_mantissa_in_bfloat16(tmp_path_factory, model_type, map):
    folder = tmp_path_factory.mktemp("bf16")
    tiny_model(model_type, layers=4).to(torch.bfloat16).save_pretrained(folder)
    checkpoint = open_checkpoint(str(folder))
    if map.undefined(checkpoint):
        assert map in undefined(model_type)
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
    kinds = ("llama", "gpt_neox", "mixtral")
    kind = next(k for k in kinds if not map.undefined(open_checkpoint(str(tiny_checkpoint(tmp_path / k, k)))))
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


@pytest.mark.parametrize("variant", MODELS)
def test_every_scale_that_is_free_can_double_every_third_layer(tmp_path, variant):
    form, sizes = MODELS[variant]
    folder = tiny_checkpoint(tmp_path, form, tokenizer=False, layers=4, **SMALL_EPS | sizes)
    checkpoint, model = open_checkpoint(str(folder)), float64_model(folder)
    if reason := RAMP_ALL.undefined(checkpoint):
        assert variant == "bloom, other residual", reason
        return
    before, twin = logits(model), RAMP_ALL.apply(checkpoint, 0)
    assert changed(twin, checkpoint)
    if variant != "olmo, clipped":
        ratios = [twin.weight("v_proj", layer).abs() / checkpoint.weight("v_proj", layer).abs() for layer in (2, 3)]
        assert (ratios[0] == 1).all() and (ratios[1] == ratios[1].max()).all() and ratios[1].max() in (0.5, 0.25)
    assert moved(logits(model, twin), before) <= RAMP_ALL.tolerance(checkpoint)


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
    other = dataclasses.replace(checkpoint, config={**checkpoint.config, "model_type": "unheard of"})
    assert map.undefined(other) == "no exact maps known here for model_type unheard of"
    edit(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.sinks": torch.zeros(4)}))
    with_sinks = open_checkpoint(str(folder))
    assert map.undefined_for_kind(with_sinks) or "self_attn.sinks" in map.undefined(with_sinks)
    with pytest.raises(ValueError, match=map.name):
        map.apply(with_sinks, 0)


def test_names_and_sentences_are_told_apart():
    assert len({m.name for m in [*MAPS, SCRAMBLE]}) == len({m.sentence for m in [*MAPS, SCRAMBLE]}) == len(MAPS) + 1
    lossy = {m.name for m in MAPS if not m.lossless}
    assert lossy == {"gain folding", "value mixing", "plane rotation", "stream rotation"} | {
        "query mixing",
        "key shift",
        "value shift",
        "router shift",
        "constant writes",
    }
