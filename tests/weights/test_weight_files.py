"""Weights read the same from every format; a file that is damaged, or is none, is one line and never runs."""

import json
import math
import os
import pickle
import shutil
import struct
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file, save, save_file

from analyses.errors import InputError
from analyses.forward.calibration import Calibration
from analyses.forward.instrumented import run
from analyses.weights import files
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.safetensors import as_file
from checks.families.tiny import save as save_tiny
from tests.tiny import tiny_checkpoint

SAFE, SAFE_INDEX = files.FORMATS[0]
PICKLE, PICKLE_INDEX = files.FORMATS[1]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("original") / "tiny")


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def rewrite(folder: Path, *, pickled: bool, shards: int = 1, dtypes=(torch.float32,)) -> Path:
    """The folder's weights in another format, tensor i in shard i mod shards and as dtypes[i mod len(dtypes)]."""
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    tensors = {name: tensors[name].to(dtypes[i % len(dtypes)]) for i, name in enumerate(sorted(tensors))}
    save = torch.save if pickled else save_file
    single, index = (PICKLE, PICKLE_INDEX) if pickled else (SAFE, SAFE_INDEX)
    if shards == 1:
        save(tensors, folder / single)
        return folder
    stem, suffix = single.split(".")
    weight_map = {name: f"{stem}-{i % shards + 1:05}.{suffix}" for i, name in enumerate(tensors)}
    for shard in set(weight_map.values()):
        save({name: tensors[name] for name in tensors if weight_map[name] == shard}, folder / shard)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def refused(folder: Path) -> str:
    """The one line that says what is wrong with the folder."""
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(folder)).inspect()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000
    return message


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickle"])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_format_gives_the_same_weights(original, folder, pickled, shards):
    expected = open_checkpoint(str(original))
    checkpoint = open_checkpoint(str(rewrite(folder, pickled=pickled, shards=shards)))
    assert checkpoint.parameters() == expected.parameters()
    assert len(set(checkpoint.files.values())) == shards
    for name in expected.files:
        assert torch.equal(checkpoint.tensor(name), expected.tensor(name)), name
        assert checkpoint.headers[name] == expected.headers[name]
    assert set(checkpoint.inspect()) >= {path.name for path in checkpoint.files.values()} | {"config.json"}


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickle"])
@pytest.mark.parametrize(
    "dtypes",
    [(torch.bfloat16,), (torch.float16,), (torch.float64,), (torch.float32, torch.bfloat16, torch.float64)],
    ids=["bf16", "fp16", "fp64", "mixed"],
)
def test_every_precision_is_read_as_stored_and_upcast_exactly(original, folder, pickled, dtypes):
    expected = open_checkpoint(str(original))
    checkpoint = open_checkpoint(str(rewrite(folder, pickled=pickled, dtypes=dtypes)))
    for i, name in enumerate(sorted(expected.files)):
        stored = checkpoint.tensor(name)
        assert stored.dtype == dtypes[i % len(dtypes)]
        assert str(stored.dtype) == "torch." + checkpoint.headers[name].dtype
        assert torch.equal(stored, expected.tensor(name).to(stored.dtype))
    (name,) = checkpoint.names("k_proj", 2)
    assert torch.equal(checkpoint.weight("k_proj", 2), checkpoint.tensor(name).double())


def test_a_sharded_pickle_feeds_the_forward_pass(folder):
    text = Calibration(name="test", texts=("Down to the sea in ships.",), sha256="0" * 64, stream=False)
    facts = run(open_checkpoint(str(rewrite(folder, pickled=True, shards=2))), text, [])
    assert facts.tokens == len(text.texts[0])


def test_a_head_tied_in_a_pickle_is_counted_once(folder):
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    before = sum(t.numel() for name, t in tensors.items() if name != "lm_head.weight")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    torch.save(tensors, folder / PICKLE)
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.parameters() == before
    assert checkpoint.headers["lm_head.weight"].shares or checkpoint.headers["model.embed_tokens.weight"].shares


def test_safetensors_win_over_a_pickle_beside_them_as_in_the_library(folder):
    torch.save({"model.norm.weight": torch.zeros(3)}, folder / PICKLE)
    assert {path.name for path in open_checkpoint(str(folder)).files.values()} == {SAFE}


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickle"])
def test_spaces_and_other_alphabets_in_a_path_are_no_matter(folder, pickled):
    moved = rewrite(folder, pickled=pickled).rename(folder.parent / "модель с пробелом ✓")
    checkpoint = open_checkpoint(str(moved))
    assert checkpoint.name == moved.name and checkpoint.inspect()


def test_links_are_followed_as_the_hubs_cache_lays_them(folder, tmp_path):
    blobs = tmp_path / "blobs"
    folder.rename(blobs)
    folder.mkdir()
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(Path("..") / "blobs" / path.name)
    assert open_checkpoint(str(folder)).inspect()
    (blobs / SAFE).unlink()
    assert "is a link to a file that is missing" in refused(folder)


def test_a_shard_outside_the_folder_is_refused(folder):
    rewrite(folder, pickled=False, shards=2)
    index = json.loads((folder / SAFE_INDEX).read_text())
    outside = shutil.copy(next(folder.glob("model-*")), folder.parent / "outside.safetensors")
    for shard in ("../outside.safetensors", str(outside), "sub/../../x", "..", "", "a\0b", 3, None):
        index["weight_map"]["model.norm.weight"] = shard
        (folder / SAFE_INDEX).write_text(json.dumps(index))
        assert "is not the name of a file in this folder" in refused(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_named(folder):
    (folder / SAFE).chmod(0)
    assert SAFE in refused(folder)


def test_a_file_that_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    checkpoint = open_checkpoint(str(folder))
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        checkpoint.inspect()
    monkeypatch.setattr("analyses.weights.safetensors.safe_open", refuse)
    with pytest.raises(InputError, match=rf"{SAFE}: cannot be read.*Permission denied"):
        files.index(folder)


def test_a_pipe_in_place_of_weights_does_not_hang(folder):
    (folder / SAFE).unlink()
    os.mkfifo(folder / SAFE)
    assert "is not a file" in refused(folder)


# --- damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickle"])
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(folder, pickled, shards, kept):
    rewrite(folder, pickled=pickled, shards=shards)
    path = next(p for p in sorted(folder.iterdir()) if p.suffix == (".bin" if pickled else ".safetensors"))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert path.name in refused(folder)


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickle"])
def test_an_index_and_its_shards_must_agree(folder, pickled):
    rewrite(folder, pickled=pickled, shards=2)
    path = folder / (PICKLE_INDEX if pickled else SAFE_INDEX)
    index = json.loads(path.read_text())
    first, second = sorted(set(index["weight_map"].values()))
    name = "model.layers.1.mlp.up_proj.weight"
    holder, other = (first, second) if index["weight_map"][name] == first else (second, first)
    path.write_text(json.dumps(index | {"weight_map": index["weight_map"] | {name: other}}))
    assert open_checkpoint(str(folder)).inspect()  # it is in the other shard, and only there
    path.write_text(json.dumps(index))
    (folder / holder).rename(folder / "kept")
    shutil.copy(folder / other, folder / holder)
    assert f"says that {holder} holds tensor " in refused(folder)
    (folder / "kept").rename(folder / holder)
    (folder / second).unlink()
    assert f"names {second}, which is missing" in refused(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"weight_map": 1}', '{"weight_map": {}}', "[" * 100_000])
def test_what_is_no_index_is_said_to_be_none(folder, text):
    rewrite(folder, pickled=False, shards=2)
    (folder / SAFE_INDEX).write_text(text)
    assert SAFE_INDEX in refused(folder)


def test_a_tensor_twice_in_one_header_is_refused(folder):
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = f"{{{entry}, {entry}}}".encode()
    (folder / SAFE).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "holds a twice" in refused(folder)


def test_an_enormous_index_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(files, "JSON_LIMIT", 100)
    rewrite(folder, pickled=False, shards=2)
    with pytest.raises(InputError, match="this is no config and no index"):
        files.index(folder)


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickle"])
def test_a_nan_anywhere_is_named_and_counted(folder, pickled):
    tensors = load_file(folder / SAFE)
    tensors["model.embed_tokens.weight"][3, 1:3] = float("nan")
    save_file(tensors, folder / SAFE)
    rewrite(folder, pickled=pickled)
    assert "tensor model.embed_tokens.weight: 2 of" in refused(folder)


# --- pickles that are no weights -------------------------------------------------------------------


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def replace_by_pickle(folder: Path, value, **keywords) -> Path:
    (folder / SAFE).unlink()
    torch.save(value, folder / PICKLE, **keywords)
    return folder


def test_a_pickle_with_code_is_refused_and_its_code_is_not_run(folder, tmp_path):
    sprung = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()
    sprung.unlink()
    assert "cannot be read as weights" in refused(replace_by_pickle(folder, {"a": Trap(sprung)}))
    (folder / PICKLE).write_bytes(pickle.dumps(Trap(sprung)))
    assert "cannot be read as weights" in refused(folder)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds list, not tensors by name"),
        ({}, "not tensors by name"),
        ({"state_dict": {"a": torch.zeros(2)}}, "entry 'state_dict' is dict, not a tensor"),
        ({3: torch.zeros(2)}, "entry 3 is Tensor"),
        ({"a": torch.zeros(3).to_sparse()}, "sparse, quantised or empty"),
        ({"a": torch.zeros(2, device="meta")}, "sparse, quantised or empty"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "is larger than its data"),
    ],
    ids=["list", "empty", "nested", "number", "sparse", "meta", "expanded"],
)
def test_a_pickle_that_is_not_weights_says_what_it_is(folder, value, message):
    assert message in refused(replace_by_pickle(folder, value))


def test_a_pickle_older_than_archives_gives_the_same_weights(original, folder):
    tensors = load_file(folder / SAFE)
    replace_by_pickle(folder, tensors, _use_new_zipfile_serialization=False)
    assert not (folder / PICKLE).read_bytes().startswith(b"PK")
    expected, checkpoint = open_checkpoint(str(original)), open_checkpoint(str(folder))
    assert checkpoint.examine()[1] == expected.examine()[1]
    torch.save({name: t * 2 for name, t in tensors.items()}, folder / PICKLE, _use_new_zipfile_serialization=False)
    name = "model.norm.weight"
    assert torch.equal(checkpoint.tensor(name), 2 * tensors[name])  # what lies there now, not what was kept


# --- quantised -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tensor", "method"),
    [
        ("model.layers.0.self_attn.q_proj.qweight", torch.zeros(4, 4, dtype=torch.int32), "GPTQ or AWQ"),
        ("model.layers.0.self_attn.q_proj.g_idx", torch.zeros(4, dtype=torch.int32), "GPTQ"),
        ("model.layers.0.self_attn.q_proj.scales", torch.zeros(4, dtype=torch.float16), "a block-scaled format"),
        ("model.layers.0.mlp.up_proj.weight.absmax", torch.zeros(4), "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.SCB", torch.zeros(4), "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", torch.zeros(4, 4), "fp8"),
        ("model.layers.1.mlp.up_proj.weight", torch.zeros(48, 32).to(torch.float8_e4m3fn), "F8_E4M3 in tensor"),
        ("model.layers.1.mlp.up_proj.weight", torch.zeros(48, 32, dtype=torch.int8), "int8 in tensor"),
    ],
)
def test_quantised_weights_are_refused_and_the_method_is_named(folder, name, tensor, method):
    save_file(load_file(folder / SAFE) | {name: tensor}, folder / SAFE)
    message = refused(folder)
    assert "quantised" in message and method in message and "give the unquantised checkpoint" in message


def test_a_mask_kept_as_bytes_is_not_taken_for_quantised_weights(folder):
    mask = torch.ones(1, 1, 4, 4, dtype=torch.uint8)
    save_file(load_file(folder / SAFE) | {"model.layers.0.self_attn.bias": mask}, folder / SAFE)
    assert open_checkpoint(str(folder)).inspect()


@pytest.mark.parametrize("configured", [True, False])
def test_gpt_oss_as_it_is_shipped_is_refused_by_the_name_of_its_format_and_read_once_unpacked(tmp_path, configured):
    save_tiny("gpt_oss", tmp_path)
    assert open_checkpoint(str(tmp_path)).experts("up_proj")  # bfloat16, or any other float
    tensors = load_file(tmp_path / "model.safetensors")
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, rows, columns = tensors.pop(name).mT.shape
        tensors[f"{name}_blocks"] = torch.zeros(experts, rows, columns // 8, 4, dtype=torch.uint8)
        tensors[f"{name}_scales"] = torch.zeros(experts, rows, columns // 8, dtype=torch.uint8)
    save_file(tensors, tmp_path / "model.safetensors")
    if configured:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}))
    with pytest.raises(InputError, match="(?i)quantised .mxfp4.*give the unquantised checkpoint") as caught:
        open_checkpoint(str(tmp_path))
    assert "\n" not in str(caught.value)


# --- fuzz --------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NUMBER = st.integers(0, 16) | st.integers(-1, 2**64)
FLAWED = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "F4", "BOOL", "X"]),
        "shape": st.lists(NUMBER, max_size=3),
        "data_offsets": st.lists(NUMBER, min_size=2, max_size=2),
    }
)


@st.composite
def safetensors_files(draw) -> bytes:
    """A file whose tensors lie one behind the other, sound in about a third of cases; else one thing is wrong."""
    entries, data = {}, b""
    for name in draw(st.lists(st.text(max_size=8), max_size=3, unique=True)):
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        payload = draw(st.binary(min_size=4, max_size=4)) * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(payload)]}
        data += payload
    flaw = draw(st.sampled_from(["none", "none", "entry", "value", "field", "size", "data"]))
    if flaw == "entry":
        entries[draw(st.text(max_size=8))] = draw(FLAWED)
    if flaw == "value":
        entries[draw(st.text(max_size=8))] = draw(ANYTHING)
    if flaw == "field" and entries:
        entry = entries[draw(st.sampled_from(sorted(entries)))]
        entry[draw(st.sampled_from(sorted(entry)))] = draw(ANYTHING | st.lists(NUMBER, max_size=3))
    header = json.dumps(entries).encode()
    # Claims of up to 2^64 bytes must not be believed: these would not fit in any memory.
    size = draw(st.sampled_from([0, 7, 2**31, 2**60, 2**64 - 1])) if flaw == "size" else len(header)
    data = draw(st.binary(max_size=40)) if flaw == "data" else data
    return struct.pack("<Q", size) + header + data


@st.composite
def shard_indices(draw) -> str:
    """An index of one tensor in one shard, sound in about a quarter of cases; else one thing is wrong or odd."""
    entry = st.sampled_from(["a.safetensors", "b.bin"]) | st.text(max_size=8) | ANYTHING
    weight_map = draw(st.sampled_from([{"a": "a.safetensors"}, {"a": "a.safetensors"}, ANYTHING]))
    if weight_map is ANYTHING:
        weight_map = draw(ANYTHING)
    elif draw(st.booleans()):
        weight_map = weight_map | {draw(st.sampled_from("ab") | st.text(max_size=8)): draw(entry)}
    return json.dumps({"weight_map": weight_map, "metadata": draw(ANYTHING)})


FUZZ = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def open_or_refuse(folder: Path) -> None:
    """Reads everything or raises InputError in one line; anything else is a defect."""
    try:
        files.inspect(files.index(folder), folder)
    except InputError as error:
        assert str(error).isprintable()


@FUZZ
@given(content=safetensors_files() | st.binary(max_size=40))
def test_any_safetensors_file_is_read_or_refused(tmp_path, content):
    (tmp_path / SAFE).write_bytes(content)
    open_or_refuse(tmp_path)


@FUZZ
@given(at=st.integers(0, 400), byte=st.integers(0, 255))
def test_any_byte_of_a_good_header_may_be_wrong(tmp_path, at, byte):
    save_file({"a": torch.ones(2, 3), "b": torch.ones(4).to(torch.bfloat16)}, tmp_path / SAFE)
    content = bytearray((tmp_path / SAFE).read_bytes())
    content[at % len(content)] = byte
    (tmp_path / SAFE).write_bytes(content)
    open_or_refuse(tmp_path)


@FUZZ
@given(at=st.integers(0, 2000), byte=st.integers(0, 255))
def test_any_byte_of_a_pickle_may_be_wrong(tmp_path, at, byte):
    torch.save({"a": torch.ones(2, 3)}, tmp_path / PICKLE)
    content = bytearray((tmp_path / PICKLE).read_bytes())
    content[at % len(content)] = byte
    (tmp_path / PICKLE).write_bytes(content)
    open_or_refuse(tmp_path)


@FUZZ
@given(index=shard_indices())
def test_any_index_is_read_or_refused(tmp_path, index):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / SAFE_INDEX).write_text(index)
    open_or_refuse(tmp_path)


@pytest.mark.parametrize("strategy", [safetensors_files(), shard_indices()], ids=["file", "index"])
def test_the_fuzz_reaches_sound_and_unsound_files(tmp_path, strategy):
    outcomes = set()

    @settings(max_examples=60, database=None, derandomize=True)
    @given(content=strategy)
    def look(content):
        if isinstance(content, str):
            save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
        (tmp_path / (SAFE_INDEX if isinstance(content, str) else SAFE)).write_bytes(
            content.encode() if isinstance(content, str) else content
        )
        try:
            outcomes.add(len(files.index(tmp_path).files))
        except InputError as error:
            outcomes.add(str(error)[:200])

    look()
    assert 1 in outcomes and len([o for o in outcomes if isinstance(o, str)]) >= 5, outcomes


@pytest.mark.parametrize("dtypes", [[torch.float64, torch.float32], [torch.float32], [torch.bfloat16, torch.float64]])
def test_a_file_of_arrays_is_the_librarys_to_the_last_byte_and_holds_no_copy_of_them(dtypes):
    shapes = {"b": (2, 3), "a": (5,), "scalar": (), "x.1.10": (1, 1, 3), "x.1.2": (4, 1), "none": (0, 3)}
    tensors = {
        name: torch.rand(shape, dtype=torch.float64).to(dtypes[i % len(dtypes)])
        for i, (name, shape) in enumerate(shapes.items())
    }
    assert b"".join(as_file(tensors)) == save(tensors)
    assert b"".join(as_file({"turned": torch.arange(6.0).view(2, 3).mT})) == save(
        {"turned": torch.arange(6.0).view(2, 3).mT.contiguous()}
    )
    whole = torch.zeros(3, 2)
    _, part = as_file({"whole": whole})
    whole += 1
    assert part.tobytes() == whole.numpy().tobytes()
