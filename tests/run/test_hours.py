"""Hours of a plan: held against runs that were measured, and told of models whose weights are not there."""

import json
import struct
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from analyses import head_grams
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.head_grams import all_pairs, folded_heads
from analyses.numerics import spectra
from analyses.run import hours
from analyses.run.costs import costs
from analyses.run.plan import plan
from analyses.weights.checkpoint import open_checkpoint
from checks.bench.checkpoints import SIZES, Size, write
from checks.cli import main

LARGE = {
    "8b": Size(layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, feed_forward=14336),
    "70b": Size(layers=80, hidden=8192, heads=64, kv_heads=8, head_dim=128, feed_forward=28672),
    "405b": Size(layers=126, hidden=16384, heads=128, kv_heads=8, head_dim=128, feed_forward=53248),
}
ACCURACY = 0.3  # as the plan says


def headers_of(size: Size, folder):
    """A checkpoint without weights: its config, and files of holes behind true headers, one a layer."""
    write(replace(size, hidden=8, heads=2, kv_heads=1, head_dim=2, feed_forward=8, layers=1), folder)
    facts = {
        "num_hidden_layers": size.layers, "hidden_size": size.hidden, "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads, "head_dim": size.head_dim, "intermediate_size": size.feed_forward,
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "layers"} | facts))
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    gains = {"input_layernorm": size.hidden, "post_attention_layernorm": size.hidden}
    gains |= {"self_attn.q_norm": size.head_dim, "self_attn.k_norm": size.head_dim}
    shapes = {name: (side,) for name, side in gains.items()} | size.matrices
    rest = {"model.norm.weight": (size.hidden,), "model.embed_tokens.weight": (1000, size.hidden)}
    parts = [{f"model.layers.{i}.{name}.weight": shape for name, shape in shapes.items()} for i in range(size.layers)]
    weight_map = {}
    for i, part in enumerate([*parts, rest]):
        header, at = {}, 0
        for name, shape in part.items():
            end = at + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
            weight_map[name], at = f"part-{i:03}.safetensors", end
        text = json.dumps(header).encode()
        with open(folder / f"part-{i:03}.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + at)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("name", LARGE)
def test_models_of_which_only_headers_are_there_have_bytes_operations_peak_and_hours(name, tmp_path, capsys):
    folder = headers_of(LARGE[name], tmp_path / name)
    assert main(["plan", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    size = LARGE[name]
    assert found["weight_bytes"] == pytest.approx(2 * size.entries, rel=0.01)  # embeddings and gains beside matrices
    two, many = found["seconds"]["2 cores"], found["seconds"]["64 cores"]
    for analysis in ("null_residual", "head_grams"):
        cost = found["costs"][analysis]
        assert cost["operations"] > 0 and cost["peak"] < 0.35 * found["weight_bytes"]
        # Products go to all cores; passes over entries, the start and the checks of files to one.
        assert two[analysis] / 32 < many[analysis] < two[analysis]
    assert main(["plan", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "on 2 cores: null_residual" in printed and "on 64 cores" in printed and "make gpu-check" in printed
    assert max(map(len, printed.splitlines())) <= 120


def test_another_machine_is_planned_for_by_its_own_bench(tmp_path, capsys):
    folder = write(SIZES["tiny"], tmp_path / "tiny")
    rates = {"float32_products": 4e14, "float64_products": 5e13, "float64_eigenvalues": 1e12, "device_memory": 3e12}
    (tmp_path / "bench.json").write_text(json.dumps({"machine": "a machine", "rates": rates}))
    assert main(["plan", str(folder), "--json", "--rates", str(tmp_path / "bench.json")]) == 0
    assert "a machine" in json.loads(capsys.readouterr().out)["seconds"]
    (tmp_path / "bench.json").write_text("{}")
    assert main(["plan", str(folder), "--rates", str(tmp_path / "bench.json")]) == 2
    assert "make bench" in capsys.readouterr().err


def test_more_cores_never_take_longer_and_more_layers_always_do(tmp_path):
    folder = headers_of(LARGE["8b"], tmp_path / "8b")
    whole, few = (plan(str(folder), Settings(layers=layers, tokens=0)) for layers in (None, range(4)))
    one, two = hours.of_cores(1), hours.of_cores(2)
    for name, seconds in hours.times(whole, one).items():
        assert hours.times(whole, two)[name] < seconds
        assert hours.times(few, one)[name] < seconds


def test_work_on_heads_is_of_the_kinds_that_are_done(tmp_path, monkeypatch):
    """torch's operations are counted where it dispatches them, NumPy's where they are called."""
    done: Counter[str] = Counter()

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name, x = function._overloadpacket.__name__, args[0]
            if name in ("mm", "bmm"):
                kind = "products of heads" if x.dtype == torch.float32 else "float64 products"
                done[kind] += 2 * x.numel() * args[1].shape[-1] * (4 if x.is_complex() else 1)
            elif name in ("geqrf", "linalg_qr"):
                done["factorisations"] += 2 * x.numel() * min(x.shape[-2:])
            elif name == "ormqr":
                done["factorisations"] += 4 * args[2].numel() * x.shape[-1]
            elif "eigh" in name:
                done["small spectra"] += 9 * x.numel() * x.shape[-1]
            elif "cholesky" in name:
                done["eigenvalues"] += (2 if "inverse" in name else 1) * x.numel() * x.shape[-1] / 3
            return function(*args, **(kwargs or {}))

    def counted(module, name, kind, work):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda x, **k: done.update({kind(x): work(x)}) or original(x, **k))

    of_heads = lambda x: "products of heads" if x.dtype == torch.float32 else "float64 products"  # noqa: E731
    for module in (spectra, all_pairs, folded_heads):  # one triangle
        counted(module, "gram", of_heads, lambda x: x.numel() * x.shape[-2])
    size = Size(layers=3, hidden=512, heads=4, kv_heads=2, head_dim=64, feed_forward=64)
    wide = lambda x: "eigenvalues" if x.shape[-1] == size.hidden else "small spectra"  # noqa: E731
    counted(np.linalg, "eigvalsh", wide, lambda x: 4 / 3 * x.size * x.shape[-1])
    counted(np.linalg, "svd", lambda x: "small spectra", lambda x: 9 * x.size * x.shape[-1])
    checkpoint = open_checkpoint(str(write(size, tmp_path / "model")))
    with Counted():
        head_grams.measure(checkpoint, seed=0, device="cpu")
    expected = costs(checkpoint, load_calibration(None), dtype="float32")["head_grams"].work
    for kind in expected.keys() - {"entries"}:  # leading terms of each: the next ones are smaller by heads or head_dim
        assert done[kind] == pytest.approx(expected[kind], rel=ACCURACY), (kind, done, expected)


# Processor seconds of `fathom measure --only NAME` on one core of two that nine others shared, by the dimensions:
# measured when the rates were, and to be measured again with them.
WIDER = replace(SIZES["0.6b"], hidden=2048, feed_forward=6144)  # as of 1.7B
SMALL_HEADS = Size(layers=4, hidden=2048, heads=32, kv_heads=4, head_dim=64, feed_forward=5632)  # as of TinyLlama
LARGE_HEADS = Size(layers=3, hidden=2304, heads=8, kv_heads=4, head_dim=256, feed_forward=9216)  # as of Gemma 2 2B
MEASURED = [  # dimensions, layers, analysis, seconds
    (SIZES["0.6b"], 6, "null_residual", 16.3),
    (SIZES["0.6b"], 6, "head_grams", 12.5),
    (SIZES["0.6b"], 12, "null_residual", 26.4),
    (SIZES["0.6b"], 12, "head_grams", 22.5),
    (WIDER, 3, "null_residual", 24.1),
    (WIDER, 3, "head_grams", 18.7),
    (SMALL_HEADS, 4, "null_residual", 30.3),
    (SMALL_HEADS, 4, "head_grams", 18.8),
    (LARGE_HEADS, 3, "null_residual", 35.3),
    (LARGE_HEADS, 3, "head_grams", 22.6),
]


@pytest.mark.parametrize(("size", "layers", "analysis", "seconds"), MEASURED)
def test_a_plan_is_right_to_thirty_percent_about_runs_that_were_measured(size, layers, analysis, seconds, tmp_path):
    found = plan(str(headers_of(replace(size, layers=layers), tmp_path / "model")))
    assert abs(hours.times(found, hours.of_cores(1))[analysis] / seconds - 1) < ACCURACY
