"""A repository of the hub is described without its weights, fetched once, and refused in one line.

The hub is a server on this machine; no test reaches another.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses.errors import InputError
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.hub import describe, locate
from tests.loopback_hub import COMMIT, loopback_hub
from tests.tiny import tiny_checkpoint

ID = "owner/tiny"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("hub") / "single")


@pytest.fixture(scope="module")
def sharded(single, tmp_path_factory) -> Path:
    """The same in two shards, beside a pickle and another tool's copy that nobody needs."""
    folder = tmp_path_factory.mktemp("hub") / "sharded"
    folder.mkdir()
    for path in single.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(single / "model.safetensors")
    weight_map = {name: SHARDS[i % 2] for i, name in enumerate(sorted(tensors))}
    for shard in SHARDS:
        save_file({name: tensors[name] for name in tensors if weight_map[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "original").mkdir()
    save_file(tensors, folder / "original" / "model.safetensors")
    save_file(tensors, folder / "consolidated.safetensors")
    return folder


@pytest.fixture
def hub(single, sharded, tmp_path, monkeypatch, loopback):
    """A hub that the client finds, and a cache that is empty."""
    with loopback_hub(repositories={ID: single, "owner/sharded": sharded}) as served:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield served


def refused(call, source: str) -> str:
    with pytest.raises(InputError) as caught:
        call(source)
    message = str(caught.value)
    assert message.startswith(source) and message.isprintable()
    return message


@pytest.mark.parametrize("source", [ID, f"{ID}@main", f"{ID}@{COMMIT}"])
def test_a_repository_opens_as_its_folder_does(hub, single, source):
    checkpoint, local = open_checkpoint(source), open_checkpoint(str(single))
    assert (checkpoint.name, checkpoint.revision) == (ID, COMMIT)
    assert checkpoint.headers == local.headers
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(checkpoint.tensor(name), local.tensor(name))
    assert (checkpoint.folder / "tokenizer.json").exists()


def test_only_one_format_is_fetched_and_nothing_from_folders(hub):
    folder, _, _ = locate("owner/sharded")
    fetched = {path.name for path in folder.rglob("*") if path.is_file()}
    assert set(SHARDS) < fetched
    assert not fetched & {"pytorch_model.bin", "consolidated.safetensors", "model.safetensors"}


def test_a_repository_of_pickles_is_fetched_and_read(hub, single, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((single / "config.json").read_bytes())
    torch.save(load_file(single / "model.safetensors"), folder / "pytorch_model.bin")
    hub.repositories["owner/pickled"] = folder
    assert open_checkpoint("owner/pickled").parameters() == open_checkpoint(str(single)).parameters()
    assert "only a download can read" in refused(describe, "owner/pickled").replace("owner/pickled: ", "", 1)


@pytest.mark.parametrize("source", [ID, "owner/sharded"])
def test_headers_come_without_weights(hub, single, source):
    described, local = describe(source), open_checkpoint(str(single))
    assert described.remote and described.revision == COMMIT and described.has_tokenizer
    assert dict(described.stored.headers) == dict(local.headers)
    content = [(path, asked) for method, path, asked in hub.requests if method == "GET" and "/resolve/" in path]
    weights = [(path, asked) for path, asked in content if path.endswith(".safetensors")]
    assert weights and all(asked for _, asked in weights), "only ranges of weights may be asked for"
    assert {path.rpartition("/")[2] for path, _ in content} - {p.rpartition("/")[2] for p, _ in weights} <= {
        "config.json",
        "model.safetensors.index.json",
    }


def test_a_folder_is_described_as_a_repository_is(hub, single):
    remote, local = describe(ID), describe(str(single))
    assert not local.remote and local.revision is None
    assert (remote.config, remote.stored.headers, remote.has_tokenizer) == (
        local.config, local.stored.headers, local.has_tokenizer)


def test_what_is_in_the_cache_is_not_fetched_again_and_needs_no_network(hub, monkeypatch):
    first = locate(ID)
    before = len(hub.fetched("model.safetensors"))
    assert locate(ID) == first and len(hub.fetched("model.safetensors")) == before
    hub.down = True
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    assert locate(ID) == first and not describe(ID).remote
    hub.down = False
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert locate(ID) == first


def test_a_download_that_breaks_off_goes_on_where_it_broke(hub, single, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # bytes that it hands on at a time
    hub.breaks["model.safetensors"] = 5000
    checkpoint = open_checkpoint(ID)
    assert hub.fetched("model.safetensors") == [None, "bytes=5000-"]
    assert checkpoint.inspect()["model.safetensors"] == open_checkpoint(str(single)).inspect()["model.safetensors"]


def test_after_a_download_that_failed_the_next_fetches_only_what_is_missing(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub.stuck[SHARDS[1]] = 0
    assert "run again to go on where it stopped" in refused(locate, "owner/sharded")
    hub.stuck.clear()
    hub.requests.clear()
    assert open_checkpoint("owner/sharded").inspect()
    assert len(hub.fetched(SHARDS[0])) == 0 and len(hub.fetched(SHARDS[1])) == 1


@pytest.mark.parametrize("call", [locate, describe])
class TestRefusals:
    def test_a_missing_repository(self, hub, call):
        assert "no such repository on the hub; if it is private, set HF_TOKEN" in refused(call, "owner/nothing")

    def test_a_wrong_revision(self, hub, call):
        assert refused(call, f"{ID}@v9").endswith("the repository has no revision 'v9'")

    def test_a_gated_repository(self, hub, call, monkeypatch):
        hub.gated.add(ID)
        assert "is gated; it needs an accepted licence on its page, and a token" in refused(call, ID)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_member")
        call(ID)

    def test_a_repository_without_weights(self, hub, call, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "config.json").write_text("{}")
        hub.repositories["owner/empty"] = tmp_path / "empty"
        message = refused(call, "owner/empty")
        assert "the repository holds no weights; expected one of model.safetensors" in message

    def test_a_repository_without_a_config(self, hub, call, single, tmp_path):
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare" / "model.safetensors").write_bytes((single / "model.safetensors").read_bytes())
        hub.repositories["owner/bare"] = tmp_path / "bare"
        assert "no config.json; expected a checkpoint" in refused(call, "owner/bare")

    def test_no_network(self, hub, call, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        assert "not in the cache, and the hub gives no answer; check the network" in refused(call, ID)

    def test_an_index_that_leaves_the_folder(self, hub, call, single, tmp_path):
        folder = tmp_path / "escaping"
        folder.mkdir()
        (folder / "config.json").write_bytes((single / "config.json").read_bytes())
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
        hub.repositories["owner/escaping"] = folder
        with pytest.raises(InputError, match="'../../etc/passwd' is not the name of a file in this folder"):
            call("owner/escaping")
        assert not any("passwd" in path for _, path, _ in hub.requests)


def test_the_command_line_finds_the_hub_by_its_environment(hub, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-m", "checks.cli", "measure", f"{ID}@v9", "--out", str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"fathom: {ID}@v9: the repository has no revision 'v9'\n"
