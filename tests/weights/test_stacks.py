"""Models of two stacks of layers, and encoders whose layers share weights or stand beside a convolution."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from analyses.errors import InputError
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.forward.loading import load
from analyses.run.suite import records_of
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.positions import turns
from checks.cli import main
from checks.families.tiny import OTHERS, save_other
from checks.maps.identities import limits
from checks.verify.remeasure import settings_of
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Name of OTHERS → its folder, made once."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        kind = OTHERS[name][0]
        if kind not in made:
            made[kind] = save_other(name, tmp_path_factory.mktemp("stacks"))
        return made[kind]

    return build


def edit_config(folder: Path, **changes) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


TWO = [
    ("t5, encoder", "encoder", "decoder"),
    ("mbart, decoder", "encoder", "decoder"),
    ("siglip, text", "text", "vision"),
]


@pytest.mark.parametrize(("name", "one", "other"), TWO)
def test_a_model_of_two_stacks_is_not_read_before_one_is_chosen(folder, name, one, other):
    with pytest.raises(InputError, match=f"--stack {one} or --stack {other}$") as caught:
        open_checkpoint(str(folder(name)))
    assert "\n" not in str(caught.value)
    stored = load_file(folder(name) / "model.safetensors")
    for stack in (one, other):
        checkpoint = open_checkpoint(str(folder(name)), stack=stack)
        names = checkpoint.names("q_proj", 1)
        assert len(names) == 1 and stack in names[0]
        assert torch.equal(checkpoint.weight("q_proj", 1), stored[names[0]].double())
        assert any(f"--stack {stack}" in note for note in checkpoint.notes)


@pytest.mark.parametrize(("name", "asked", "message"), [
    ("t5, encoder", "vision", "has an encoder and a decoder; expected --stack encoder or decoder"),
    ("clip, text", "encoder", "has a tower for text and a tower for images; expected --stack text or vision"),
    ("distilbert", "encoder", "has one stack of layers; leave the option out"),
])  # fmt: skip
def test_a_stack_that_the_model_has_not_is_named_with_those_that_it_has(folder, name, asked, message):
    with pytest.raises(InputError, match=message):
        open_checkpoint(str(folder(name)), stack=asked)


def test_a_folder_that_holds_one_of_two_stacks_needs_no_option(folder, tmp_path):
    whole = load_file(folder("t5, encoder") / "model.safetensors")
    save_file({name: t for name, t in whole.items() if not name.startswith("decoder.")}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder("t5, encoder") / "config.json").read_bytes())
    (tmp_path / "tokenizer.json").write_bytes((folder("t5, encoder") / "tokenizer.json").read_bytes())
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.architecture.name == "T5, encoder"
    assert not any("--stack" in note for note in checkpoint.notes)
    load(checkpoint, dtype="float32", device="cpu", attention="eager", trust_remote_code=False)  # without its decoder


def test_the_stack_is_part_of_what_was_measured(folder, tmp_path, capsys):
    asked = ["measure", str(folder("t5, encoder")), "--only", "null_residual", "--out", str(tmp_path)]
    assert main([*asked, "--stack", "encoder"]) == 0 and main([*asked, "--stack", "decoder"]) == 0
    encoder, decoder = sorted(path for path in tmp_path.iterdir() if path.is_dir())[::-1]
    assert encoder.name.endswith("--encoder") and decoder.name.endswith("--decoder")
    manifest, record = (json.loads((encoder / f"{name}.json").read_text()) for name in ("manifest", "null_residual"))
    assert record["key"]["stack"] == "encoder" and settings_of(manifest, ["null_residual"], None).stack == "encoder"
    assert "--stack encoder" in manifest["command"]
    assert record["pair_results"] != json.loads((decoder / "null_residual.json").read_text())["pair_results"]
    assert main(["plan", str(folder("t5, encoder")), "--stack", "decoder"]) == 0
    assert "what the encoder makes of another text" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "stack", "why"), [
    ("t5, decoder", "decoder", "what the encoder makes of another text"),
    ("whisper, encoder", "encoder", "reads sound"),
    ("vit", None, "read images"),
])  # fmt: skip
def test_what_reads_no_text_has_its_weights_measured_and_says_why_nothing_else(folder, name, stack, why):
    checkpoint = open_checkpoint(str(folder(name)), stack=stack)
    record = records_of(
        checkpoint, load_calibration(), Settings(device="cpu", only=("attention_stats",)), ["attention_stats"]
    )
    assert record["attention_stats"]["static"] and record["attention_stats"]["dynamic"] is None
    assert why in json.dumps(record["attention_stats"]["absent"])


# --- layers that share weights --------------------------------------------------------------------------


@torch.no_grad()
def test_a_shared_layer_runs_as_often_as_in_its_own_class(folder):
    checkpoint = open_checkpoint(str(folder("albert")))
    assert checkpoint.shape.layers == 5 and [checkpoint.number(layer) for layer in range(5)] == [0, 0, 0, 1, 1]
    ours = load(checkpoint, dtype="float32", device="cpu", attention="eager", trust_remote_code=False)
    theirs = transformers.AutoModel.from_pretrained(checkpoint.folder).eval()
    ids = torch.arange(3, 30).view(1, -1)
    assert len(ours.get_submodule(checkpoint.architecture.layers)) == 5
    assert torch.allclose(ours(ids).last_hidden_state, theirs(ids).last_hidden_state, atol=1e-6)


def test_layers_that_share_weights_are_equal_and_said_to_be(folder):
    checkpoint = open_checkpoint(str(folder("albert")))
    settings = Settings(device="cpu", only=("null_residual",))
    pairs = records_of(checkpoint, load_calibration(), settings, ["null_residual"])["null_residual"]["pair_results"]
    cosines = [pair["families"]["q_proj"]["cos"] for pair in pairs]
    assert cosines[:2] == pytest.approx([1, 1]) and abs(cosines[2]) < 0.5 and cosines[3] == pytest.approx(1)
    assert any("share their weights" in note for note in checkpoint.notes)


@pytest.mark.parametrize(("change", "message"), [
    ({"num_hidden_groups": 9}, "num_hidden_groups must be a whole number from 1"),
    ({"num_hidden_groups": "two"}, "num_hidden_groups must be a whole number from 1"),
    ({"num_hidden_groups": 1}, "hold more layers"),
    ({"inner_group_num": 2}, "groups of one layer alone"),
])  # fmt: skip
def test_groups_that_do_not_fit_are_one_line(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        open_checkpoint(str(edit_config(save_other("albert", tmp_path), **change)))


# --- encoders -----------------------------------------------------------------------------------------------


def test_a_convolution_beside_the_layers_leaves_the_weights_to_be_measured(tmp_path):
    checkpoint = open_checkpoint(str(edit_config(save_other("deberta-v2", tmp_path), conv_kernel_size=3)))
    assert "convolution" in checkpoint.no_pass and "q_proj" in checkpoint.families


def test_rotary_bases_of_older_configs_are_those_of_the_class(tmp_path):
    folder = save_other("modernbert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "layer_types"):
        config.pop(key, None)
    old = {"global_rope_theta": 160000.0, "local_rope_theta": 9000.0, "global_attn_every_n_layers": 3}
    (folder / "config.json").write_text(json.dumps(config | old))
    model, checkpoint = transformers.AutoModel.from_pretrained(folder), open_checkpoint(str(folder))
    for layer, module in enumerate(model.layers):
        theirs = getattr(model.rotary_emb, f"{module.attention_type}_inv_freq").double().tolist()
        assert list(turns(checkpoint, layer).frequencies) == pytest.approx(theirs, rel=1e-6)


def test_limits_are_given_also_of_maps_that_no_part_of_a_model_has(tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, "bert")))
    path = "head_grams.metrics.all_distance_similarity"
    assert all(limit > 0 for limit in limits(checkpoint, [path])[path].values())
