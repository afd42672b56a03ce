"""A manifest says all that determined the numbers, and nothing of who ran it, or where."""

import getpass
import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses import records
from analyses.forward.inputs import Settings
from analyses.run.measure import measure
from analyses.weights.checkpoint import open_checkpoint
from checks.machine import environment
from checks.machine.manifest import manifest
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def described(tiny, tmp_path_factory) -> dict:
    measured = measure(str(tiny), tmp_path_factory.mktemp("out"), Settings(device="cpu"))
    return records.plain(manifest(measured))


def leaves(value, path=""):
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}")
    else:
        yield path, value


WANTED = (
    "model", "tensors", "files.model.safetensors", "files.config.json", "files.tokenizer.json", "architecture.record",
    "calibration.sha256", "analyses.head_grams.version", "analyses.head_grams.code", "source.lock", "source.commit",
    "versions.python", "versions.torch", "versions.numpy", "machine.blas", "machine.threads", "machine.processor",
    "settings.dtype", "settings.attention", "settings.batch", "settings.seed", "determinism.deterministic_algorithms",
    "records.delta_svd",
)  # fmt: skip


def test_everything_that_can_move_a_number_is_there(described):
    found = {path[1:] for path, value in leaves(described) if value not in (None, "")}
    missing = set(WANTED) - found
    assert not missing
    assert "a folder has no revision" in described["absent"]["revision"]


def test_it_names_no_person_no_host_and_no_place(described, tiny):
    text = json.dumps(described)
    for private in {getpass.getuser(), platform.node(), str(Path.home()), str(Path.cwd()), str(tiny.parent)}:
        named = [path for path, value in leaves(described) if isinstance(value, str) and private in value.split()]
        assert not named, (private, named)
    absolute = [v for _, v in leaves(described) if isinstance(v, str) and any(w.startswith("/") for w in v.split())]
    assert not absolute, absolute
    assert str(Path.cwd()) not in text and str(tiny.parent) not in text


def test_a_checkout_names_its_commit_and_an_installation_says_that_it_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.source() == {
        "lock": "none shipped",
        "commit": "not a checkout of Fathom's repository",
    }
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    (tmp_path / "requirements.lock").write_text("torch\n")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    found = environment.source()
    assert found["tree"] == "clean" and len(found["commit"]) == 40 and len(found["lock"]) == 64
    (tmp_path / "requirements.lock").write_text("torch==1\n")
    assert environment.source()["tree"] == "changed since"


def test_the_same_tensors_in_other_files_have_the_same_digest_and_one_bit_another(tiny, tmp_path):
    tensors = load_file(tiny / "model.safetensors")
    names = sorted(tensors)
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    shards = {"b.safetensors": names[::2], "a.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    files, content, _ = open_checkpoint(str(tmp_path)).examine()
    assert content == open_checkpoint(str(tiny)).examine()[1]
    assert {"a.safetensors", "b.safetensors"} <= set(files)
    tensors[names[0]].view(torch.int32).reshape(-1)[0] ^= 1
    save_file({name: tensors[name] for name in shards["b.safetensors"]}, tmp_path / "b.safetensors")
    assert open_checkpoint(str(tmp_path)).examine()[1] != content
