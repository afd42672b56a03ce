"""A plan is right about what a measurement then reads, costs and leaves out, and reads no tensor to say so."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode

from analyses.errors import LEFT_OUT, InputError
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Passes, Settings
from analyses.forward.probe import LayerStates
from analyses.head_grams import all_pairs, folded_heads, one_head
from analyses.numerics import spectra
from analyses.residual_stream import StreamProbe, linearity, states
from analyses.run.costs import costs, tokens
from analyses.run.plan import plan
from analyses.run.suite import analyse
from analyses.weights import files
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.schema import FAMILIES
from checks.cli import main
from tests.run import test_memory
from tests.tiny import tiny_checkpoint
from tests.weights.test_hub import ID, hub, sharded, single  # noqa: F401, fixtures

FACTOR = 3  # as the plan says: leading terms only, and an allocator between what is held and what is resident


def test_a_plan_tells_what_the_checkpoint_holds(single):  # noqa: F811
    found, checkpoint = plan(str(single)), open_checkpoint(str(single))
    tensors = load_file(single / "model.safetensors")
    assert (found.layers, found.hidden, found.heads, found.kv_heads, found.head_dim) == (3, 32, 4, 2, 8)
    assert found.parameters == sum(tensor.numel() for tensor in tensors.values()) == sum(found.dtypes.values())
    assert found.weight_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert (found.architecture, found.recognised) == ("Qwen3", "by its model_type, qwen3")
    assert set(found.present) | set(found.absent) == set(FAMILIES) and found.present == checkpoint.families
    assert not found.remote and not found.skipped


def test_a_plan_reads_no_tensor(single, monkeypatch):  # noqa: F811
    def refuse(*arguments):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(files, "read", refuse)
    plan(str(single))


def test_what_has_no_tokenizer_or_no_such_weights_is_announced_as_skipped(tmp_path):
    found = plan(str(tiny_checkpoint(tmp_path / "llama", "llama", tokenizer=False)))
    assert found.absent["q_norm"] == "this architecture does not normalise queries"
    assert {"delta_svd", "head_geometry", "attention_stats, of the text"} <= set(found.skipped)
    assert all("no tokenizer" in why for why in found.skipped.values())
    ungated = plan(str(tiny_checkpoint(tmp_path / "gpt2", "gpt2", tokenizer=False)))
    assert "not gated" in ungated.skipped["null_residual, of gate_proj"]


def test_what_a_plan_skips_a_measurement_skips(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny", tokenizer=False)
    assert main(["measure", str(folder), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    skipped = {
        path.stem for path in (tmp_path / "out" / "tiny").glob("*.json") if "skipped" in json.loads(path.read_text())
    } - {"manifest"}
    assert skipped <= set(plan(str(folder)).skipped)
    assert "delta_svd" in skipped


@pytest.mark.parametrize("source", [ID, "owner/sharded", f"{ID}@main"])
def test_a_plan_of_a_repository_says_the_same_and_fetches_no_weights(hub, single, source):  # noqa: F811
    remote, local = plan(source), plan(str(single))
    assert remote.remote and remote.revision
    same = ("architecture", "recognised", "layers", "parameters", "dtypes", "present", "absent", "costs", "skipped")
    assert all(getattr(remote, name) == getattr(local, name) for name in same)
    assert not [path for path, asked in ((p, r) for m, p, r in hub.requests if m == "GET") if "safetensors" in path
                and not path.endswith(".json") and not asked]  # fmt: skip


def test_what_cannot_be_measured_has_no_plan(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny", tokenizer=False)
    name = "model.layers.0.mlp.up_proj.qweight"
    save_file(load_file(folder / "model.safetensors") | {name: torch.zeros(2, 2, dtype=torch.int32)},
              folder / "model.safetensors")  # fmt: skip
    with pytest.raises(InputError, match="quantised"):
        plan(str(folder))


def test_the_command_line_prints_a_plan(single, capsys):  # noqa: F811
    assert main(["plan", str(single)]) == 0
    printed = capsys.readouterr().out
    for words in ("Qwen3, recognised by its model_type", "3 layers, hidden 32", "present: q_proj", "null_residual",
                  "peak memory", "read once to check and hash them"):  # fmt: skip
        assert words in printed
    assert max(map(len, printed.splitlines())) <= 120
    assert main(["plan", str(single), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == plan(str(single)).parameters
    assert main(["plan", str(single / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- costs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return test_memory.checkpoint_of(tmp_path_factory.mktemp("costs") / "model", layers=4, shards=1)


def test_operations_are_those_that_are_done(folder, monkeypatch):
    """Products are counted by torch; what LAPACK and NumPy do is counted where they are called."""
    other = []

    def counted(module, name, work):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda x, *a, **k: other.append(work(x)) or original(x, *a, **k))

    def batch(x):
        return x.shape[:-2].numel()

    counted(spectra, "gram", lambda x: 2 * batch(x) * x.shape[-2] ** 2 * x.shape[-1])
    counted(all_pairs, "gram", lambda x: x.shape[-2] ** 2 * x.shape[-1])  # one triangle
    counted(spectra, "eigenvalues", lambda x: 4 / 3 * batch(x) * x.shape[-1] ** 3)
    counted(torch.linalg, "eigvalsh", lambda x: 4 / 3 * batch(x) * x.shape[-1] ** 3)
    counted(torch, "geqrf", lambda x: 2 * batch(x) * max(x.shape[-2:]) * min(x.shape[-2:]) ** 2)
    counted(torch, "ormqr", lambda x: 4 * batch(x) * x.shape[-2] * x.shape[-1] ** 2)  # as many columns at least
    counted(torch.linalg, "qr", lambda x: 4 * batch(x) * max(x.shape[-2:]) * min(x.shape[-2:]) ** 2)
    counted(folded_heads, "gram", lambda x: x.shape[-2] ** 2 * x.shape[-1])  # one triangle
    counted(folded_heads, "eigenvalues", lambda x: 4 / 3 * x.shape[-1] ** 3)
    counted(torch.linalg, "eigh", lambda x: 9 * batch(x) * x.shape[-1] ** 3)
    counted(torch.linalg, "cholesky", lambda x: x.shape[-1] ** 3 / 3)
    counted(torch, "cholesky_inverse", lambda x: 2 * x.shape[-1] ** 3 / 3)
    for module in (spectra, one_head):
        counted(module, "right_svd", lambda x: 9 * batch(x) * max(x.shape[-2:]) * min(x.shape[-2:]) ** 2)
    checkpoint = open_checkpoint(str(folder))
    expected = costs(checkpoint, load_calibration(None), dtype="float32")
    for name in ("null_residual", "head_grams", "weight_spectra"):
        other.clear()
        with FlopCounterMode(display=False) as counter:
            analyse(name, checkpoint, Passes(skipped="no text"), Settings(device="cpu"), None)
        done = counter.get_total_flops() + sum(other)
        assert 1 / FACTOR < expected[name].operations / done < FACTOR, (name, expected[name].operations, done)


@pytest.mark.parametrize("lengths", [[300] * 8, [40] * 6])  # more than 8 tokens a dimension, and fewer
def test_operations_on_the_stream_are_those_that_are_done(folder, monkeypatch, lengths):
    other = []

    def counted(module, name, work):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda x, *a: other.append(work(x, *a)) or original(x, *a))

    for module in (states, linearity):
        counted(module, "gram", lambda x: 2 * x.shape[-2] ** 2 * x.shape[-1])
    counted(states, "eigenvalues", lambda x: 4 / 3 * x.shape[-1] ** 3)
    counted(linearity, "leading_modes", lambda x, k: 4 / 3 * len(x) ** 3 + 4 * k * len(x) ** 2)
    counted(torch.linalg, "cholesky_ex", lambda x: x.numel() * x.shape[-1] / 3)
    counted(torch, "cholesky_inverse", lambda x: x.numel() * x.shape[-1] * 2 / 3)
    counted(torch.linalg, "eigh", lambda x: 9 * x.numel() * x.shape[-1])
    checkpoint = open_checkpoint(str(folder))
    probe, generator = StreamProbe(layer_norm=False, depth=28), torch.Generator().manual_seed(0)
    probe.begin(torch.ones(len(lengths), lengths[0], dtype=torch.bool))
    h, after = torch.randn(2, sum(lengths), checkpoint.shape.hidden, generator=generator)
    with FlopCounterMode(display=False) as counter:
        for layer in range(checkpoint.shape.layers):
            probe.layer(layer, LayerStates(hidden=h, attention=h, feed_forward=h, output=after, next_input=after))
    text = replace(load_calibration(None), texts=(), ids=tuple((1,) * length for length in lengths), stream=False)
    expected = costs(checkpoint, text, dtype="float32")["residual_stream"].operations
    done = counter.get_total_flops() + sum(other)
    assert 1 / FACTOR < expected / done < FACTOR, (expected, done)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read as Linux gives it")
def test_peak_memory_is_what_a_run_takes(folder):
    script = test_memory.SCRIPT.partition("folder, limit")[0] + """
checkpoint = open_checkpoint(sys.argv[1])
two = checkpoint.restricted(layers=range(2))
passes, settings, found = Passes(skipped="no text"), Settings(device="cpu"), {}
for name in ("null_residual", "head_grams", "attention_stats", "weight_spectra"):
    run = lambda of: analyse(name, of, passes, settings, None)
    found[name] = peak(lambda: run(checkpoint), lambda: run(two))
print(json.dumps(found))
"""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(folder)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    expected = costs(open_checkpoint(str(folder)), load_calibration(None), dtype="float32")
    for name, measured in json.loads(ran.stdout).items():
        planned = expected[name].peak
        assert measured < FACTOR * planned, (name, planned, measured)
        # Less than a megabyte may fit in what the library kept of the run before; more does not.
        assert planned < FACTOR * measured or planned < 1 << 20, (name, planned, measured)


def test_tokens_are_estimated_within_the_factor_for_english():
    # Published: about four characters a token for English in vocabularies of 30,000 to 150,000 pieces.
    text = load_calibration(None)
    words = sum(len(one.split()) for one in text.texts)
    assert words < tokens(text) < FACTOR * words


# --- options -------------------------------------------------------------------------------------


def test_a_plan_follows_the_layers_families_and_text_that_are_asked_for(single, tmp_path):  # noqa: F811
    whole = plan(str(single))
    some = plan(str(single), Settings(layers=range(1, 3), families=("up_proj",), tokens=3000))
    assert some.present == ("up_proj",) and some.layers == 2
    assert some.costs["null_residual"].operations < whole.costs["null_residual"].operations
    assert LEFT_OUT in some.skipped["head_grams"] and LEFT_OUT in some.absent["q_proj"]
    assert (whole.text, some.text) == ("fathom-calibration 1", "fathom-documents 1")
    assert whole.tokens == sum(len(text.encode()) for text in load_calibration().texts)  # one token a byte
    assert 3000 <= some.tokens < 6000
    assert some.costs["forward"].operations != whole.costs["forward"].operations
    ids = tmp_path / "x.ids.jsonl"
    ids.write_text("[1, 2, 3]\n[4, 5]\n")
    assert plan(str(single), Settings(calibration=ids)).tokens == 5
    with pytest.raises(InputError, match="layers 0:9"):
        plan(str(single), Settings(layers=range(9)))


def test_a_plan_says_beforehand_that_a_text_is_foreign_or_cannot_be_read(tmp_path, capsys):
    folder = tiny_checkpoint(tmp_path / "tiny", tokenizer=False)
    backend = Tokenizer(models.WordLevel(vocab={"[UNK]": 0, "EVQLVESGG": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(folder)
    assert main(["plan", str(folder)]) == 0
    assert "100 % of its tokens are unknown to the tokenizer" in capsys.readouterr().out
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "is a pointer of git-lfs" in plan(str(folder)).skipped["delta_svd"]
