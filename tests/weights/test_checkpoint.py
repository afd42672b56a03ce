"""A checkpoint is read as it is stored; what does not fit is refused in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses.errors import InputError
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import MODEL_TYPES, tiny_checkpoint, tiny_model


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "remove"}))


def edit_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny", tokenizer=False)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_role_is_the_parameter_of_the_same_name_in_the_librarys_model(tmp_path, model_type):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, model_type, tokenizer=False)))
    layer = tiny_model(model_type).model.layers[1]
    attention, mlp = layer.self_attn, layer.mlp
    expected = {
        "q_proj": attention.q_proj, "k_proj": attention.k_proj, "v_proj": attention.v_proj, "o_proj": attention.o_proj,
        "gate_proj": mlp.gate_proj, "up_proj": mlp.up_proj, "down_proj": mlp.down_proj,
        "input_ln": layer.input_layernorm, "post_attn_ln": layer.post_attention_layernorm,
    }  # fmt: skip
    if model_type == "qwen3":
        expected |= {"q_norm": attention.q_norm, "k_norm": attention.k_norm}
    assert set(checkpoint.families) == set(expected)
    assert set(checkpoint.families) | set(checkpoint.absent) >= {"q_norm", "k_norm"}
    for family, module in expected.items():
        assert torch.equal(checkpoint.weight(family, 1), module.weight.detach().double()), family
    assert checkpoint.has_qk_bias == (model_type == "qwen2")


def test_layers_are_ordered_by_number_not_by_name(tmp_path):
    folder = tiny_checkpoint(tmp_path, layers=12, tokenizer=False)
    checkpoint, model = open_checkpoint(str(folder)), tiny_model("qwen3", layers=12)
    for layer in range(12):
        stored = model.model.layers[layer].mlp.up_proj.weight.detach().double()
        assert torch.equal(checkpoint.weight("up_proj", layer), stored)


def test_head_blocks_are_the_rows_of_each_head(folder):
    checkpoint = open_checkpoint(str(folder))
    blocks = checkpoint.head_blocks("k_proj", 0)
    assert blocks.shape == (2, 8, 32)
    assert torch.equal(blocks[1], checkpoint.weight("k_proj", 0)[8:16])


def test_shards_and_a_missing_prefix_read_the_same(folder, tmp_path):
    whole = open_checkpoint(str(folder))
    tensors = {name.removeprefix("model."): t for name, t in load_file(folder / "model.safetensors").items()}
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, sharded / shard)
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (sharded / "config.json").write_text((folder / "config.json").read_text())
    other = open_checkpoint(str(sharded))
    assert other.parameters() == whole.parameters() == sum(t.numel() for t in tensors.values())
    for family in whole.families:
        assert torch.equal(other.weight(family, 2), whole.weight(family, 2))
    (sharded / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b\.safetensors, which is missing"):
        open_checkpoint(str(sharded))


def test_the_hash_of_the_weights_changes_with_one_bit(folder):
    before = open_checkpoint(str(folder)).inspect()

    def flip(tensors):
        tensors["model.norm.weight"].view(torch.int32)[0] ^= 1

    edit_weights(folder, flip)
    after = open_checkpoint(str(folder)).inspect()
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_a_tensor_with_nan_or_infinity_is_named(folder, name, bad):
    edit_weights(folder, lambda tensors: tensors[name].view(-1).__setitem__(3, bad))
    with pytest.raises(InputError, match=name.replace(".", r"\.") + ": 1 of"):
        open_checkpoint(str(folder)).inspect()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1}, "one layer"),
        ({"num_hidden_layers": 4}, r"layer_types must have an entry for each of 4 layers, got 3"),
        ({"num_hidden_layers": 4, "layer_types": None}, r"no tensor model\.layers\.3\.self_attn\.q_proj\.weight"),
        ({"num_hidden_layers": 2}, "more layers than the config's 2"),
        ({"num_attention_heads": 8}, r"q_proj\.weight: shape \[32, 32\], but the config says \[64, 32\]"),
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"intermediate_size": 64}, r"gate_proj\.weight: shape"),
        ({"hidden_size": "remove"}, "hidden_size must be a positive integer"),
        ({"model_type": "perceptron", "intermediate_size": 64}, "'perceptron' is not in the architecture table"),
        ({"model_type": "mamba"}, "'mamba' cannot be measured: it has no attention"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantised \(gptq, says quantization_config\)"),
    ],
)
def test_a_config_that_does_not_fit_is_one_clear_line(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_config_or_weights_says_what_was_expected(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(InputError, match="expected"):
        open_checkpoint(str(folder))


def test_a_truncated_weight_file_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "not a model", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(source):
    with pytest.raises(InputError, match="no such folder"):
        open_checkpoint(source)


def test_a_restricted_checkpoint_has_these_layers_and_families_alone(tmp_path):
    whole = open_checkpoint(str(tiny_checkpoint(tmp_path / "tiny", layers=5)))
    part = whole.restricted(layers=range(2, 5), families=("q_proj", "input_ln"))
    assert part.shape.layers == 3 and part.families == ("q_proj", "input_ln")
    assert "left out" in part.absent["k_proj"]
    for layer in range(3):
        assert torch.equal(part.weight("q_proj", layer), whole.weight("q_proj", layer + 2))
    assert torch.equal(part.restricted(layers=range(1, 3)).weight("q_proj", 0), whole.weight("q_proj", 3))


@pytest.mark.parametrize("layers", [range(2, 3), range(0, 6), range(-1, 3), range(0, 4, 2), range(3, 3)])
def test_layers_that_the_model_has_not_are_refused(tmp_path, layers):
    whole = open_checkpoint(str(tiny_checkpoint(tmp_path / "tiny", layers=5)))
    with pytest.raises(InputError, match="expected at least two within 0:5"):
        whole.restricted(layers=layers)
