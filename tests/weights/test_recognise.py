"""A checkpoint is read as what its names and shapes show, behind any prefix; else one line says what is missing."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from analyses.errors import InputError
from analyses.weights.checkpoint import open_checkpoint
from checks.report import provenance
from checks.twins.roles import unknown_tensors
from checks.twins.twins import SHUFFLED
from tests.tiny import TINY, tiny_checkpoint

UNKNOWN = "perceptron"


def rewrite(folder: Path, rename=lambda name: name, **config) -> Path:
    """Rename tensors and change the config of a checkpoint in place; a name of None drops its tensor."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {new: tensor for name, tensor in tensors.items() if (new := rename(name)) is not None}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


@pytest.mark.parametrize(
    "prefix", ["", "model.model.", "student.model.", "language_model.model.", "model.language_model."]
)
def test_a_prefix_may_be_missing_doubled_or_another(tmp_path, prefix):
    folder = tiny_checkpoint(tmp_path, "qwen3", tokenizer=False)
    whole = open_checkpoint(str(folder))
    expected = {f: whole.weight(f, 2) for f in whole.families}
    other = open_checkpoint(str(rewrite(folder, lambda n: n.replace("model.", prefix, 1))))
    assert other.prefix == prefix and other.note is None
    assert all(torch.equal(other.weight(f, 2), expected[f]) for f in expected)
    assert not unknown_tensors(other)


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("gpt2", lambda n: n.removeprefix("transformer.")),
        ("bloom", lambda n: n.removeprefix("transformer.")),
        ("gpt_neox", lambda n: n.removeprefix("gpt_neox.") if "embed_out" not in n else None),
        ("opt", lambda n: n.removeprefix("model.")),
        (
            "bert",
            lambda n: n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
        ),
        ("bert", lambda n: n.removeprefix("bert.") if not n.startswith("cls.") else None),
    ],
    ids=["gpt2", "bloom", "gpt_neox without head", "opt", "bert of old", "bert without head"],
)
def test_the_spellings_of_older_checkpoints_are_read_alike(tmp_path, name, rename):
    folder = tiny_checkpoint(tmp_path, name, tokenizer=False)
    whole = open_checkpoint(str(folder))
    weights = {f: whole.weight(f, 1) for f in whole.families}
    biases = {f: whole.bias(f, 1) for f in whole.families}
    other = open_checkpoint(str(rewrite(folder, rename)))
    assert set(other.families) == set(weights) and not unknown_tensors(other)
    for family in weights:
        assert torch.equal(other.weight(family, 1), weights[family]), family
        assert torch.equal(other.bias(family, 1), biases[family]), family


def test_masks_and_frequencies_that_old_checkpoints_store_are_no_parameters(tmp_path):
    folder = tiny_checkpoint(tmp_path, "gpt2", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors |= {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8), "transformer.h.0.attn.masked_bias": torch.zeros(1)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert not unknown_tensors(open_checkpoint(str(folder)))


def test_layers_are_ordered_by_number_in_every_layout(tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, "gpt2", layers=12, tokenizer=False)))
    for layer in range(12):
        stored = checkpoint.tensor(f"transformer.h.{layer}.attn.c_attn.weight").double()
        assert torch.equal(checkpoint.weight("k_proj", layer), stored[:, 32:64].mT)


RECOGNISED = {
    "llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "phi3": "Phi-3", "olmo": "OLMo", "olmo2": "OLMo 2",
    "stablelm": "StableLM", "stablelm, parallel": "StableLM", "phi": "Phi", "gpt2": "GPT-2", "gptj": "GPT-J",
    "gpt_neox": "GPT-NeoX", "opt": "OPT", "bert": "BERT", "mixtral": "Mixtral", "qwen3_moe": "Qwen3-MoE",
    "falcon": "Falcon", "falcon, new decoder": "Falcon",
}  # fmt: skip


@pytest.mark.parametrize("name", RECOGNISED)
def test_an_unknown_type_is_read_as_the_one_family_that_its_names_fit_and_says_so(tmp_path, name):
    folder = tiny_checkpoint(tmp_path, name, tokenizer=False)
    expected = open_checkpoint(str(folder))
    checkpoint = open_checkpoint(str(rewrite(folder, model_type=UNKNOWN)))
    assert expected.note is None and checkpoint.architecture is expected.architecture
    assert checkpoint.note == (
        f"model_type '{UNKNOWN}' is not in the architecture table; its names and shapes are those of "
        f"{expected.architecture.name}, as which it was read"
    )


def test_the_page_says_as_what_an_unknown_type_was_read(tmp_path):
    folder = rewrite(tiny_checkpoint(tmp_path, "qwen3", tokenizer=False), model_type=UNKNOWN)
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.notes == [checkpoint.note]
    assert provenance.origin({"architecture": {"notes": checkpoint.notes}}) == [checkpoint.note]


def test_what_the_config_does_not_say_is_what_the_class_takes(tmp_path):
    """Gemma 3's configs leave out heads and their dimension."""
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    folder = tiny_checkpoint(tmp_path, "gemma3", tokenizer=False, layers=2, **sizes)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k not in sizes}))
    shape = open_checkpoint(str(folder)).shape
    assert (shape.heads, shape.kv_heads, shape.head_dim) == (8, 4, 256)


def test_the_text_part_of_a_model_that_also_sees_is_read_and_its_tower_left_alone(tmp_path):
    text = TINY["gemma3"][1] | {"num_hidden_layers": 2}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision | {"image_size": 28, "patch_size": 14})
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.architecture.name == "Gemma 3" and checkpoint.shape.hidden == 32
    assert not unknown_tensors(checkpoint)
    twin = SHUFFLED.apply(checkpoint, 0)
    changed = {name for name in checkpoint.files if not torch.equal(twin.tensor(name), checkpoint.tensor(name))}
    assert changed and all(name.startswith("language_model.") for name in changed)


def test_what_could_be_several_families_is_refused(tmp_path):
    """Sequential Falcon with all its biases has the names of BLOOM, which counts positions otherwise."""
    folder = tiny_checkpoint(tmp_path, "falcon, sequential", tokenizer=False)
    with pytest.raises(InputError, match=r"fits BLOOM and Falcon; add a record to analyses/weights/architectures\.py"):
        open_checkpoint(str(rewrite(folder, model_type=UNKNOWN)))


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (
            lambda n: n.replace("up_proj", "upwards"),
            r"as Qwen3: .* no tensor model\.layers\.0\.mlp\.up_proj\.weight, .*no up_proj",
        ),
        (
            lambda n: re.sub("[qk]_norm", "sink", n) if "q_norm" in n or "k_norm" not in n else None,
            r"nearest: as Llama: tensor model\.layers\.0\.self_attn\.sink\.weight has no role",
        ),
        (lambda n: n.replace("layers.", "blocks."), "whatever its prefix"),
    ],
    ids=["another name", "another norm", "no layers"],
)
def test_names_that_fit_no_family_are_one_line_with_what_is_missing_and_what_to_do(tmp_path, rename, said):
    folder = tiny_checkpoint(tmp_path, "qwen3", tokenizer=False)
    with pytest.raises(InputError, match=said) as caught:
        open_checkpoint(str(rewrite(folder, rename, model_type=UNKNOWN)))
    assert "\n" not in str(caught.value) and "add a record to analyses/weights/architectures.py" in str(caught.value)


def test_a_known_type_whose_role_is_missing_says_which(tmp_path):
    folder = tiny_checkpoint(tmp_path, "gpt2", tokenizer=False)
    with pytest.raises(InputError, match=r"no tensor transformer\.h\.0\.mlp\.c_fc\.weight, so there is no up_proj"):
        open_checkpoint(str(rewrite(folder, lambda n: n.replace("c_fc", "c_in"))))


def test_a_missing_expert_and_one_too_many_are_noticed(tmp_path):
    folder = tiny_checkpoint(tmp_path, "mixtral", tokenizer=False)
    with pytest.raises(
        InputError, match=r"no tensor .*experts\.4\.w1\.weight, though the config says 3 layers of 5 experts"
    ):
        open_checkpoint(str(rewrite(folder, num_local_experts=5)))
    with pytest.raises(InputError, match=r"more experts than the config says \(found .*experts\.3\.w1"):
        open_checkpoint(str(rewrite(folder, num_local_experts=3)))


def test_layers_of_another_kind_lack_what_the_others_have_and_say_why(tmp_path):
    folder = tiny_checkpoint(tmp_path, "qwen3_moe", tokenizer=False, mlp_only_layers=[1])
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.layers_with("down_proj") == (0, 2) and checkpoint.layers_with("q_proj") == (0, 1, 2)
    assert checkpoint.why_not("down_proj", 1) == "layer 1 is of another kind (one feed-forward, no choice of experts)"
    assert checkpoint.alike(0, 2) == (True, True) and checkpoint.alike(0, 1) == (True, False)


def test_a_layer_that_lacks_a_role_and_is_of_no_other_kind_is_damaged(tmp_path):
    folder = tiny_checkpoint(tmp_path, "qwen3_moe", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    left = {n: t for n, t in tensors.items() if not n.startswith("model.layers.1.mlp.experts.")}
    save_file(left, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"no tensor model\.layers\.1\.mlp\.experts\.0\.gate_proj\.weight"):
        open_checkpoint(str(folder))


def test_a_fused_tensor_of_the_wrong_shape_is_named(tmp_path):
    folder = tiny_checkpoint(tmp_path, "phi3", tokenizer=False)
    with pytest.raises(InputError, match=r"qkv_proj\.weight: shape \[64, 32\], but the config says \[96, 32\]"):
        open_checkpoint(str(rewrite(folder, num_key_value_heads=4)))


def test_a_bias_of_the_wrong_shape_or_missing_in_one_layer_is_named(tmp_path):
    folder = tiny_checkpoint(tmp_path, "gpt2", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    name = "transformer.h.1.attn.c_attn.bias"
    for damaged, said in (
        (tensors | {name: torch.zeros(95)}, r"c_attn\.bias: shape \[95\], but the config says \[96\]"),
        ({n: t for n, t in tensors.items() if n != name}, r"no tensor .*h\.1\.attn\.c_attn\.bias, though other layers"),
    ):
        save_file(damaged, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(InputError, match=said):
            open_checkpoint(str(folder))


def test_two_stacks_of_layers_are_not_told_apart_by_a_guess(tmp_path):
    folder = tiny_checkpoint(tmp_path, "llama", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    twice = {n.replace("model.", f"{stack}.", 1): t.clone() for n, t in tensors.items() for stack in ("one", "two")}
    save_file(twice, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="'one.' and 'two.'"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("name", TINY)
def test_every_stored_tensor_of_every_family_has_a_role(tmp_path, name):
    assert not unknown_tensors(open_checkpoint(str(tiny_checkpoint(tmp_path, name, tokenizer=False))))
