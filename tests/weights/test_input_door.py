"""What people's folders hold: read where the decoder is whole, else one line that names the thing and the step."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses.errors import InputError
from analyses.weights import elsewhere
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.hub import describe
from tests.tiny import tiny_checkpoint

SAFE, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 4976698672\n"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("door") / "tiny", "qwen2", tokenizer=False)


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def edit(folder: Path, change) -> Path:
    tensors = load_file(folder / SAFE)
    save_file(change(tensors), folder / SAFE, {"format": "pt"})
    return folder


def config(folder: Path, drop: tuple[str, ...] = (), **changes) -> Path:
    path = folder / "config.json"
    tree = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in tree.items() if key not in drop}))
    return folder


def shards(folder: Path, *parts: dict[str, torch.Tensor], promised: dict[str, int] | None = None) -> list[Path]:
    """Shards in place of the single file; `promised` adds to the index what they need not hold."""
    (folder / SAFE).unlink()
    paths = [folder / f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    weight_map = {}
    for path, part in zip(paths, parts, strict=True):
        save_file(part, path)
        weight_map |= dict.fromkeys(part, path.name)
    weight_map |= {name: paths[i].name for name, i in (promised or {}).items()}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return paths


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(folder)).examine()
    assert str(caught.value).isprintable()
    return str(caught.value)


# --- wrappers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: f"module.{name}",
        lambda name: f"_forward_module.{name}",
        lambda name: name.replace(".mlp.", ".mlp._orig_mod."),
        lambda name: name.replace("layers.1.", "layers.1._checkpoint_wrapped_module._fsdp_wrapped_module."),
        lambda name: "module._orig_mod." + name.replace("q_proj.", "q_proj._module."),
    ],
    ids=["data parallel", "fabric", "compiled feed-forwards", "one block of two wrappers", "several"],
)
def test_wrappers_anywhere_in_a_name_are_no_part_of_it(original, folder, wrap):
    expected = open_checkpoint(str(original))
    checkpoint = open_checkpoint(str(edit(folder, lambda t: {wrap(name): value for name, value in t.items()})))
    assert checkpoint.files.keys() == expected.files.keys() and not checkpoint.note
    assert checkpoint.examine()[1] == expected.examine()[1]
    assert torch.equal(checkpoint.weight("up_proj", 1), expected.weight("up_proj", 1))


def test_one_tensor_under_two_wrappers_is_not_chosen_between(folder):
    message = refused(edit(folder, lambda t: t | {f"module.{UP}": t[UP] * 2}))
    assert f"tensor {UP} is there twice" in message and f"module.{UP}" in message


# --- only what is read decides -----------------------------------------------------------------------


def test_the_copy_that_the_index_names_wins_over_a_stale_one_whichever_file_comes_first(folder):
    tensors = load_file(folder / SAFE)
    first, last = "model.layers.0.mlp.down_proj.weight", UP
    new = {name: tensors[name] * 2 for name in (first, last)}
    a, b = shards(folder, tensors | {last: new[last]}, tensors | {first: new[first]})
    index = json.loads((folder / INDEX).read_text())
    rest = dict.fromkeys(tensors, a.name) | {first: b.name, last: a.name}
    (folder / INDEX).write_text(json.dumps(index | {"weight_map": rest}))
    checkpoint = open_checkpoint(str(folder))
    assert torch.equal(checkpoint.tensor(first), new[first]) and torch.equal(checkpoint.tensor(last), new[last])
    del rest[last]
    (folder / INDEX).write_text(json.dumps(index | {"weight_map": rest}))
    assert f"tensor {last} is in both" in refused(folder)


@pytest.mark.parametrize("damage", ["missing", "cut", "pointer", "lacks it"])
def test_a_shard_that_only_a_draft_head_needs_may_be_damaged_and_is_told(folder, damage):
    draft = {"mtp.fc.weight": torch.ones(32, 64), "mtp.norm.weight": torch.ones(32)}
    _, path = shards(folder, load_file(folder / SAFE), draft, promised={"mtp.head.weight": 1})
    if damage == "missing":
        path.unlink()
    elif damage != "lacks it":
        path.write_bytes(POINTER if damage == "pointer" else path.read_bytes()[:-40])
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.examine()[1]
    (told,) = [note for note in checkpoint.notes if "cannot be read" in note]
    assert path.name in told and str(folder) not in told
    assert told.startswith(f"Of what no layer needs, {1 if damage == 'lacks it' else 3} tensor")


def test_a_layer_that_is_lost_is_refused_with_what_it_was_lost_with(folder):
    tensors = load_file(folder / SAFE)
    second = {name: tensors.pop(name) for name in list(tensors) if ".layers.2." in name}
    _, path = shards(folder, tensors, second)
    path.write_bytes(POINTER)
    message = refused(folder)
    assert "no tensor model.layers.2." in message and f"{path.name}: is a pointer of git-lfs" in message


def test_a_nan_that_no_analysis_reads_is_a_note_and_one_of_a_layer_a_refusal(folder):
    bad = torch.tensor([[1.0, math.nan], [math.inf, 2.0]])
    checkpoint = open_checkpoint(str(edit(folder, lambda t: t | {"vision_tower.blocks.0.attn.qkv.weight": bad})))
    (note,) = checkpoint.examine()[2]
    assert note.startswith("tensor vision_tower.blocks.0.attn.qkv.weight: 2 of 4 entries are NaN or infinite, and no")
    assert f"tensor {UP}" in refused(edit(folder, lambda t: t | {UP: t[UP] / 0 * 0}))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("visual.merger.weight", torch.ones(4, 4, dtype=torch.int8)),
        ("mtp.layers.0.mlp.up_proj.weight", torch.ones(4, 4).to(torch.float8_e4m3fn)),
        ("mtp.layers.0.mlp.up_proj.weight_scale_inv", torch.ones(1, 1)),
        ("model.layers.0.self_attn.relative.weight", torch.ones(4, 4, dtype=torch.int64)),
    ],
)
def test_whole_numbers_and_scales_beside_what_is_read_do_not_make_it_quantised(folder, name, tensor):
    assert open_checkpoint(str(edit(folder, lambda t: t | {name: tensor}))).examine()
    inside = {"self_attn.relative": "self_attn.q_proj", "visual.merger": "model.layers.0.mlp.up_proj",
              "mtp.layers": "model.layers"}  # fmt: skip
    for old, new in inside.items():
        name = name.replace(old, new)
    assert "quantised" in refused(edit(folder, lambda t: t | {name: tensor}))


@pytest.mark.parametrize("key", ["num_nextn_predict_layers", "num_mtp_layers", None])
def test_layers_that_predict_further_tokens_are_not_the_decoders(original, folder, key):
    """With a key of the config as many as it says; without one, those that hold what only such a layer has."""

    def add(tensors):
        more = {n.replace(".2.", f".{layer}."): t.clone() for n, t in tensors.items() if ".2." in n for layer in (3, 4)}
        only = {f"model.layers.{layer}.eh_proj.weight": torch.ones(32, 64) for layer in (3, 4)}
        return tensors | more | ({} if key else only)

    edit(folder, add)
    checkpoint = open_checkpoint(str(config(folder, **({key: 2} if key else {}))))
    assert checkpoint.shape == open_checkpoint(str(original)).shape
    assert any("predict further tokens" in note for note in checkpoint.notes)
    if key:
        assert "more layers than the config's 3" in refused(config(folder, **{key: 1}))


def test_the_stored_type_is_that_of_most_of_the_decoders_parameters(folder):
    def narrow(tensors):
        kept = {n: t if "norm" in n or "embed" in n else t.to(torch.bfloat16) for n, t in tensors.items()}
        return kept | {"visual.patch.weight": torch.ones(1000, 1000)}

    checkpoint = open_checkpoint(str(edit(folder, narrow)))
    assert checkpoint.headers["model.embed_tokens.weight"].dtype == "float32"
    assert checkpoint.stored_dtype() == "bfloat16"


# --- folders without weights -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["adapter_model.bin", "optimizer.pt"], ("an adapter (adapter_model.bin)", "merge")),
        (["pytorch_model-00002-of-00003.bin"], ("shards without their index", "pytorch_model.bin.index.json")),
        (["pytorch_model.fp16.bin"], ("saved as a variant (pytorch_model.fp16.bin)", "rename")),
        (["model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"], ("a variant", "variant=")),
        (["Q8.gguf", "config.json"], ("llama.cpp (Q8.gguf)", "converted from")),
        (["consolidated.00.pth", "params.json"], ("makers' own layout (consolidated.00.pth)", "convert")),
        ([".metadata", "__0_0.distcp"], ("a distributed checkpoint", "dcp_to_torch")),
        (["latest", "global_step1/zero_pp_rank_0_mp_rank_00_optim_states.pt"], ("DeepSpeed", "zero_to_fp32.py")),
        (["iter_0000100/model_optim_rng.pt"], ("Megatron", "convert")),
        (["tf_model.h5"], ("TensorFlow", "PyTorch")),
        (["model.onnx"], ("another program (model.onnx)", "made from")),
        (["epoch=3.ckpt"], ("a training checkpoint (epoch=3.ckpt)", "state_dict")),
        (["model.safetensors.incomplete"], ("broke off", "download it again")),
        (["weights.safetensors"], ("tensors in weights.safetensors", "rename it")),
        (["checkpoint-9/model.safetensors", "checkpoint-5/pytorch_model.bin"], ("checkpoint-5, checkpoint-9", "give")),
        (["optimizer.pt", "trainer_state.json"], ("beside the weights (optimizer.pt)", "not the weights")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("configured", [True, False])
def test_what_a_folder_holds_instead_of_weights_is_named_with_the_step_that_helps(folder, names, words, configured):
    for path in folder.iterdir():
        if path.name != "config.json" or not configured:
            path.unlink()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        if name != "config.json":
            (folder / name).write_bytes(b"x")
    message = refused(folder)
    assert message.startswith(f"{folder}: no ") and all(word in message for word in words), message
    assert elsewhere.shown(names) in message


def test_a_folder_that_holds_nothing_of_the_kind_is_not_explained(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert elsewhere.instead(tmp_path) == ""
    assert refused(tmp_path).endswith("expected a checkpoint in Hugging Face's layout")


def test_an_adapter_names_the_model_that_it_is_for(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base\n"}))
    assert r"for some/base\n)" in refused(tmp_path)
    for text in ("[", "[]", "{}", '{"base_model_name_or_path": 3}'):
        (tmp_path / "adapter_config.json").write_text(text)
        assert "an adapter (adapter_config.json), which" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [(POINTER, "git lfs pull"), (b"<!DOCTYPE html><html>", "a web page"), (b"", "is empty")],
    ids=["pointer", "web page", "empty"],
)
@pytest.mark.parametrize("name", [SAFE, "pytorch_model.bin", "config.json"])
def test_what_stands_in_a_files_place_is_called_what_it_is(folder, content, what, name):
    if name != "config.json":
        (folder / SAFE).unlink()
    (folder / name).write_bytes(content)
    message = refused(folder)
    assert f"{folder / name}: is " in message and what in message


def test_a_file_given_for_a_folder_says_what_it_is(tmp_path):
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    assert "is a file; it holds weights for llama.cpp" in refused(tmp_path / "model-Q4_K_M.gguf")


def test_one_file_beside_shards_is_read_as_the_library_does_and_the_shards_are_told(folder):
    tensors = load_file(folder / SAFE)
    whole = (folder / SAFE).read_bytes()
    shards(folder, tensors)
    assert not open_checkpoint(str(folder)).notes
    (folder / SAFE).write_bytes(whole)
    assert any(f"{SAFE} was read" in note for note in open_checkpoint(str(folder)).notes)
    save_file({"x": torch.zeros(2)}, folder / SAFE)
    message = refused(folder)
    assert "no tensor layers.0.self_attn.q_proj.weight" in message and "if it is a leftover, remove it" in message


@pytest.mark.parametrize("inner", ["model", "state_dict", "ema"])
def test_tensors_one_level_down_in_a_pickle_are_pointed_at(folder, inner):
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    torch.save({"step": 3, inner: tensors}, folder / "pytorch_model.bin")
    assert f"the tensors are below {inner!r}: save that entry alone" in refused(folder)


def test_what_a_pickle_holds_beside_its_tensors_is_told_and_not_read(original, folder):
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    torch.save(tensors | {"step": 3, "odd": torch.zeros(3).to_sparse()}, folder / "pytorch_model.bin")
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.examine()[1] == open_checkpoint(str(original)).examine()[1]
    assert sum("cannot be read" in note for note in checkpoint.notes) == 2


# --- one door for config -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config": [1]}, "text_config must be an object, got [1]"),
        ({"model_type": 3}, "model_type must be text, got 3"),
        ({"rope_parameters": {"rope_theta": "10000"}}, "rope_parameters.rope_theta must be a positive number, got"),
        ({"rope_parameters": [1]}, "rope_parameters must be an object"),
        ({"rope_theta": True}, "rope_theta must be a positive number, got True"),
        ({"partial_rotary_factor": 2.5}, "partial_rotary_factor must be a number from 0 to 1"),
        ({"no_rope_layers": [1, 0]}, "no_rope_layers must have an entry for each of 3 layers, got 2"),
        ({"layer_types": [1, 2, 3]}, "layer_types must be a list of words"),
        ({"max_position_embeddings": "2048"}, "max_position_embeddings must be a positive whole number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
        ({"hidden_act": {"a": 1}}, "hidden_act must be text"),
        ({"initializer_range": [0.02]}, "initializer_range must be a number from 0 on"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; no model has more than 10000"),
        ({"intermediate_size": 10**9}, "intermediate_size is 1000000000; no model has more"),
        ({"model_type": "mixtral", "num_local_experts": 10**9}, "num_local_experts is 1000000000; no model has more"),
        ({"num_attention_heads": "four"}, "num_attention_heads must be a positive integer, got 'four'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
def test_a_value_of_another_type_is_named_with_what_was_expected(folder, changes, message, nested):
    if nested:
        tree = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": tree}))
    else:
        config(folder, **changes)
    found = refused(folder)
    assert message in found and str(folder / "config.json") in found, found


@pytest.mark.parametrize("changes", [{"text_config": None}, {"model_type": None}, {"rope_parameters": None}])
def test_null_is_as_good_as_nothing(original, folder, changes):
    checkpoint, expected = open_checkpoint(str(config(folder, **changes))), open_checkpoint(str(original))
    assert checkpoint.shape == expected.shape
    if "model_type" in changes:
        assert "model_type '(none)' is not in the architecture table" in checkpoint.note


@pytest.mark.parametrize("model_type", [None, "perceptron"])
def test_a_config_that_no_record_can_read_is_one_line(folder, model_type):
    message = refused(config(folder, drop=("hidden_size", "num_attention_heads"), model_type=model_type))
    assert "its names fit no record; nearest: as " in message


def test_what_a_config_inside_another_leaves_out_is_what_the_class_takes(tmp_path):
    """Mistral's class takes 8 key/value heads, where none would mean as many as queries have."""
    sizes = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 2}
    folder = tiny_checkpoint(tmp_path, "mistral", tokenizer=False, **sizes)
    tree = json.loads((folder / "config.json").read_text())
    del tree["num_key_value_heads"]
    for outer in ({"model_type": "llava", "text_config": tree}, {"model_type": "own", "llm_config": tree}):
        (folder / "config.json").write_text(json.dumps(outer))
        assert open_checkpoint(str(folder)).shape.kv_heads == 8
    del tree["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": tree}))
    assert "though the config says 32 layers" in refused(folder)  # as the library would read it


def test_a_description_is_of_the_same_tensors(folder):
    edit(folder, lambda t: {f"module.{name}": value for name, value in t.items()})
    assert describe(str(folder)).stored.headers == open_checkpoint(str(folder)).headers
