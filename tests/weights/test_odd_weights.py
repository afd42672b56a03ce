"""Weights that nobody would store are refused by name, and many of them are read in the time of reading them."""

import os
import threading
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses.errors import InputError
from analyses.weights import files, pickled, safetensors
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import tiny_checkpoint

READ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", layers=2)


def with_tensors(tiny, folder, **changed):
    """The model with other tensors, as safetensors, or as a pickle where its name says so."""
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny / "config.json").read_bytes())
    return folder, load_file(tiny / "model.safetensors") | changed


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int8, torch.int64])
def test_a_matrix_of_no_floats_is_refused_as_a_quantised_one_is(tiny, tmp_path, dtype):
    folder, tensors = with_tensors(tiny, tmp_path / "m")
    torch.save(tensors | {READ: tensors[READ].to(dtype)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=rf"{READ}"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("view", [lambda t: torch.complex(t, t).conj().imag, lambda t: torch.complex(t, t).conj()])
def test_a_view_whose_sign_is_turned_is_refused_and_not_read_with_the_other_sign(tiny, tmp_path, view):
    folder, tensors = with_tensors(tiny, tmp_path / "m")
    torch.save(tensors | {READ: view(tensors[READ])}, folder / "pytorch_model.bin")
    with pytest.raises(InputError) as told:
        open_checkpoint(str(folder)).examine()
    assert READ in str(told.value) and "\n" not in str(told.value)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + b"\0" * (1 << 26))
    with pytest.raises(InputError, match="unpack to"):
        pickled.headers(path)


def test_a_header_is_parsed_once_for_all_tensors_and_again_when_the_file_has_changed(tmp_path, monkeypatch):
    path, opened = tmp_path / "model.safetensors", []
    tensors = {f"t{i}": torch.full((2, 3), float(i), dtype=torch.bfloat16) for i in range(300)}
    save_file(tensors | {"none": torch.empty(0, 4), "one": torch.tensor(2.0)}, path)
    original = safetensors.safe_open
    monkeypatch.setattr(safetensors, "safe_open", lambda *a, **k: opened.append(1) or original(*a, **k))
    names = list(safetensors.headers(path)[0])
    assert all(torch.equal(safetensors.read(path, name), load_file(path)[name]) for name in names[:20])
    assert [safetensors.read(path, name).shape for name in ("none", "one")] == [(0, 4), ()]
    for name in names:
        safetensors.read(path, name)
    assert len(opened) == 1
    save_file({"t0": torch.ones(5)}, path)
    os.utime(path, ns=(1, 1))
    assert safetensors.read(path, "t0").shape == (5,)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tiny, tmp_path):
    folder, tensors = with_tensors(tiny, tmp_path / "m")
    save_file(tensors, folder / "model.safetensors")
    os.mkfifo(folder / "tokenizer.json")
    told: list[str] = []

    def read() -> None:
        try:
            open_checkpoint(str(folder)).examine()
        except InputError as error:
            told.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert not reader.is_alive() and "tokenizer.json: not a file" in told[0]


def test_more_tensors_than_any_model_has_are_refused(tmp_path, monkeypatch):
    save_file({f"t{i}": torch.zeros(1) for i in range(20)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(files, "MOST_TENSORS", 19)
    with pytest.raises(InputError, match="20 tensors"):
        files.index(tmp_path)
