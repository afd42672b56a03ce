"""Bad input is one line and exit code 2, and what was measured before is still there, to the byte."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from checks.cli import main
from tests.tiny import tiny_checkpoint

WEIGHTS = "model.safetensors"


def edit(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


UP = "model.layers.1.mlp.up_proj.weight"
DAMAGES = {
    "truncated": lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]),
    "a missing shard": lambda f: ((f / WEIGHTS).rename(f / "x"), (f / f"{WEIGHTS}.index.json").write_text(
        json.dumps({"weight_map": {"a": "gone.safetensors"}}))),
    "a tensor of the wrong shape": lambda f: edit(f, lambda t: t.update({UP: torch.zeros(3, 3)})),
    "fewer layers than the config says": lambda f: config(f, num_hidden_layers=4),
    "more layers than the config says": lambda f: config(f, num_hidden_layers=2),
    "other heads than the config says": lambda f: config(f, num_attention_heads=8),
    "NaN": lambda f: edit(f, lambda t: t[UP].view(-1).__setitem__(0, float("nan"))),
    "a pickle that is not weights": lambda f: ((f / WEIGHTS).unlink(), torch.save([1], f / "pytorch_model.bin")),
    "quantised": lambda f: config(f, quantization_config={"quant_method": "awq"}),
    "a config that is no JSON": lambda f: (f / "config.json").write_text("{"),
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A folder with a model and what was measured of it."""
    root = tmp_path_factory.mktemp("bad") / "ein Pfad mit Lücken ✓"
    tiny_checkpoint(root / "tiny", tokenizer=False)
    assert main(["measure", str(root / "tiny"), "--only", "head_grams", "--out", str(root / "out"), "--quiet"]) == 0
    return root


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_damage_is_one_line_and_nothing_is_lost(measured, tmp_path, capsys, damage):
    root = Path(shutil.copytree(measured, tmp_path / measured.name))
    before = {path: path.read_bytes() for path in (root / "out").rglob("*") if path.is_file()}
    assert before
    DAMAGES[damage](root / "tiny")
    capsys.readouterr()
    assert main(["measure", str(root / "tiny"), "--out", str(root / "out"), "--quiet"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("fathom: ") and printed.err.count("\n") == 1
    assert {path: path.read_bytes() for path in (root / "out").rglob("*") if path.is_file()} == before


def test_an_all_zero_layer_is_measured_and_its_gaps_have_reasons(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny", tokenizer=False)
    edit(folder, lambda t: [t[name].zero_() for name in t if ".layers.1." in name])
    assert main(["measure", str(folder), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    record = json.loads((tmp_path / "out" / "tiny" / "null_residual.json").read_text())
    assert record["scales"]["up_proj"][1] == 0
    assert record["pair_results"][0]["families"]["up_proj"]["cos"] is None
    assert "one of the two tensors is all zero, so it has no direction" in record["absent"].values()
