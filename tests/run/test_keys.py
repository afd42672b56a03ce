"""A key is all that determines a record: it changes with each of them, and with nothing else."""

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses import records, registry
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.run import keys
from analyses.run.keys import differing, key_of, told
from analyses.run.measure import outdated, resolve
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import tiny_checkpoint

READS_THE_TEXT = {name for name in registry.NAMES if registry.reads_text(name)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


def keys_of(folder: Path, *, text: Path | None = None, **settings) -> dict[str, keys.Key]:
    checkpoint = open_checkpoint(str(folder))
    resolved = resolve(Settings(device="cpu", **settings), checkpoint)
    files, calibration = checkpoint.inspect(), load_calibration(text)
    return {name: key_of(checkpoint, name, resolved, calibration, files) for name in registry.NAMES}


def changed(before: dict[str, keys.Key], after: dict[str, keys.Key]) -> dict[str, str]:
    """Analysis → what differs, in words; those whose key is the same are left out."""
    parts = {name: differing(before[name], after[name]) for name in before}
    return {name: told(found) for name, found in parts.items() if found}


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / folder.name)
    return to / folder.name


def flip_a_bit(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    bits = tensors["model.layers.1.mlp.up_proj.weight"].view(torch.int32)
    bits[0, 0] ^= 1
    save_file(tensors, folder / "model.safetensors")


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_two_looks_at_the_same_thing_give_the_same_key_and_every_part_is_there(tiny):
    found = keys_of(tiny)
    assert found == keys_of(tiny)
    for key in found.values():
        assert set(key) == set(keys.PARTS) - {"stack"}  # which one has where a part of a model is asked for
        assert all(isinstance(part, str | int) for part in key.values())
        assert str(tiny.parent) not in json.dumps(key)


def test_one_bit_of_one_weight_is_named(tiny, tmp_path):
    other = copy(tiny, tmp_path)
    flip_a_bit(other)
    assert changed(keys_of(tiny), keys_of(other)) == dict.fromkeys(registry.NAMES, "weights")


def test_another_tokenizer_or_config_is_named_and_a_stray_file_is_not(tiny, tmp_path):
    other = copy(tiny, tmp_path)
    (other / "notes.json").write_text("{}")
    (other / "README.md").write_text("words")
    assert not changed(keys_of(tiny), keys_of(other))
    edit(other / "tokenizer.json", version="1.0.1")
    assert set(changed(keys_of(tiny), keys_of(other)).values()) == {"tokenizer"}
    edit(other / "config.json", rms_norm_eps=1e-5)
    assert set(changed(keys_of(tiny), keys_of(other)).values()) == {"config, tokenizer"}


def test_another_text_concerns_only_what_reads_it(tiny, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("Other words altogether. " * 30)
    assert changed(keys_of(tiny), keys_of(tiny, text=text)) == dict.fromkeys(
        (name for name in registry.NAMES if name in READS_THE_TEXT), "text"
    )


@pytest.mark.parametrize("setting, value", [("dtype", "bfloat16"), ("attention", "sdpa")])
def test_another_forward_pass_concerns_only_what_reads_it(tiny, setting, value):
    found = changed(keys_of(tiny), keys_of(tiny, **{setting: value}))
    assert found == dict.fromkeys((name for name in registry.NAMES if name in READS_THE_TEXT), setting)


def test_another_seed_number_of_threads_or_library_concerns_all(tiny, monkeypatch):
    before = keys_of(tiny)
    assert set(changed(before, keys_of(tiny, seed=1)).values()) == {"seed"}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 99)
        assert set(changed(before, keys_of(tiny)).values()) == {"threads"}
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.0")
    assert set(changed(before, keys_of(tiny)).values()) == {"libraries"}


def test_a_new_version_of_an_analysis_concerns_it_and_what_reads_it(tiny, monkeypatch):
    before = keys_of(tiny)
    row = registry.row("attention_stats")
    monkeypatch.setitem(registry._BY_NAME, row.name, replace(row, version=1 + row.version))
    assert changed(before, keys_of(tiny)) == {
        "attention_stats": "analysis",
        "schedule_fit": "an analysis that it reads",
        "head_geometry": "an analysis that it reads",
        "residual_stream": "an analysis that it reads",
    }


def test_a_revision_of_the_hub_is_named_though_the_files_be_the_same(tiny):
    checkpoint = open_checkpoint(str(tiny))
    files, text, settings = checkpoint.inspect(), load_calibration(), resolve(Settings(device="cpu"), checkpoint)
    one, two = (
        key_of(replace(checkpoint, revision=name * 40), "null_residual", settings, text, files) for name in "ab"
    )
    assert differing(one, two) == ["revision"]


def test_the_imports_of_a_module_are_those_that_its_syntax_tree_has():
    paths = [path for floor in ("analyses", "checks") for path in (keys.ROOT / floor).rglob("*.py")]
    assert len(paths) > 100
    for path in paths:
        module = ".".join(path.relative_to(keys.ROOT).with_suffix("").parts).removesuffix(".__init__")
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        own = {name for name in names if name.partition(".")[0] in ("analyses", "checks")}
        assert keys._imports(module) == {name for name in own if keys._path(name).exists()}, module


def test_code_is_that_of_everything_imported_and_of_nothing_else():
    closure = keys._closure("analyses.head_grams")
    assert {"analyses.head_grams.one_head", "analyses.numerics.spectra", "analyses.weights.checkpoint"} <= closure
    assert not {"analyses.delta_svd.phases", "analyses.schedule_fit.forms", "analyses.run.measure"} & closure
    assert keys.code("analyses.head_grams") == keys.code("analyses.head_grams") != keys.code("analyses.delta_svd")


# --- a record and its key -----------------------------------------------------------------------

KEY = {"analysis": "toy", "seed": 0}


def toy(**values) -> dict:
    return {"schema_version": records.SCHEMA_VERSION, "analysis": "toy", "model": "m", "absent": {}, "x": 0.1} | values


def test_a_record_with_its_key_is_current_and_one_with_another_key_is_told_apart(tmp_path):
    path = tmp_path / "toy.json"
    assert outdated(path, KEY) == "not measured yet"
    records.write_record(path, toy(), key=KEY)
    assert outdated(path, KEY) is None
    assert outdated(path, KEY | {"seed": 1, "dtype": "bfloat16"}) == "dtype, seed changed"
    records.write_record(path, toy(error="no room"), key=KEY | {"seed": 1})
    assert outdated(path, KEY | {"seed": 1}) == "it failed the last time"


def test_a_digit_changed_by_hand_is_noticed(tmp_path):
    path = tmp_path / "toy.json"
    records.write_record(path, toy(), key=KEY)
    path.write_text(path.read_text().replace("0.1", "0.2"))
    assert "checksum" in outdated(path, KEY)


def test_half_a_record_and_arrays_that_are_not_its_own_are_noticed(tmp_path):
    path = tmp_path / "toy.json"
    records.write_record(path, toy(), key=KEY, arrays=[b"num", b"bers"])
    assert outdated(path, KEY) is None
    path.with_suffix(".safetensors").write_bytes(b"others")
    assert "toy.safetensors" in outdated(path, KEY)
    path.with_suffix(".safetensors").unlink()
    assert "toy.safetensors" in outdated(path, KEY)
    path.write_text(path.read_text()[:40])
    assert "cannot be read" in outdated(path, KEY)


def test_a_record_without_a_key_is_of_an_earlier_version(tmp_path):
    records.write_json(tmp_path / "toy.json", toy())
    assert "no key" in outdated(tmp_path / "toy.json", KEY)
