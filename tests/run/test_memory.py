"""Twice the layers in twice the shards take no more memory: what is held is two layers of one role.

Measured in processes of their own, as the peak of the resident memory above what it was after the
imports. The C library keeps freed blocks for later and so grows by its own habits; told to hand back
every block of 64 KiB or more, it shows what is held.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

LAYERS = 5
HIDDEN, HEADS, HEAD_DIM, WIDTH = 128, 4, 32, 768
ROLE = WIDTH * HIDDEN * 8  # bytes of one layer of the largest role in float64

# Keeping every layer of one role would add LAYERS·ROLE. Half of that is far above what the records
# themselves add (L²·heads numbers, 3 kB here) and what a page granularity of 4 kB can do to a peak.
TOLERANCE = LAYERS * ROLE // 2

# head_grams holds the queries and keys of many layers up to a limit, which a model of this size does not reach;
# lowered to this, it is reached with half of the layers already.
GRAM_LIMIT = 1 << 18

SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path
import analyses.head_grams.all_pairs as products
import analyses.head_grams.head_ranks as ranks
from analyses.weights.checkpoint import open_checkpoint
from analyses.null_residual.matching import matched_cosines
from analyses.forward.inputs import Passes, Settings
from analyses.run.suite import analyse

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))

def peak(call, few=None):
    (few or call)()  # once before, on few layers: what is imported or set up on first use is no part of it
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    call()
    return status("VmHWM") - before

folder, limit = sys.argv[1], int(sys.argv[2])
assert min(products.SLAB_BYTES, products.TILE_BYTES, ranks.LOT_BYTES) > limit
products.SLAB_BYTES = products.TILE_BYTES = ranks.LOT_BYTES = limit
checkpoint = open_checkpoint(folder)
two = checkpoint.restricted(layers=range(2))
passes, settings = Passes(skipped="no text"), Settings(device="cpu")
found = {"open": peak(lambda: open_checkpoint(folder)), "inspect": peak(checkpoint.inspect)}
runs = {
    name: lambda of, name=name: analyse(name, of, passes, settings, None) for name in ("head_grams", "attention_stats")
}
# null_residual in its two parts, since the larger one would hide what the other holds
one = replace(settings, families=("up_proj",))
runs["null_residual"] = lambda of: analyse("null_residual", of, passes, one, None)
runs["matching"] = lambda of: matched_cosines(of, seed=0, device="cpu")
for name, run in runs.items():
    found[name] = peak(lambda: run(checkpoint), lambda: run(two))
print(json.dumps(found))
"""


def checkpoint_of(folder: Path, *, layers: int, shards: int) -> Path:
    """A Qwen3 decoder of so many random layers in so many shards."""
    folder.mkdir()
    config = {
        "model_type": "qwen3", "hidden_size": HIDDEN, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2, "head_dim": HEAD_DIM, "intermediate_size": WIDTH,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    query, key = HEADS * HEAD_DIM, HEADS // 2 * HEAD_DIM
    shapes = {
        "self_attn.q_proj": (query, HIDDEN), "self_attn.k_proj": (key, HIDDEN), "self_attn.v_proj": (key, HIDDEN),
        "self_attn.o_proj": (HIDDEN, query), "mlp.gate_proj": (WIDTH, HIDDEN), "mlp.up_proj": (WIDTH, HIDDEN),
        "mlp.down_proj": (HIDDEN, WIDTH), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
        "self_attn.q_norm": (HEAD_DIM,), "self_attn.k_norm": (HEAD_DIM,),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    names = {f"model.layers.{i}.{role}.weight": shape for i in range(layers) for role, shape in shapes.items()}
    weight_map = {name: f"model-{i * shards // len(names) + 1:05}.safetensors" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        part = {n: torch.randn(*names[n], generator=generator) for n in names if weight_map[n] == shard}
        save_file(part, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def peaks(folder: Path) -> dict[str, int]:
    """Analysis → peak resident bytes above those after the imports."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(GRAM_LIMIT)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read as Linux gives it")
def test_twice_the_layers_and_shards_take_no_more_memory(tmp_path):
    once = peaks(checkpoint_of(tmp_path / "once", layers=LAYERS, shards=2))
    twice = peaks(checkpoint_of(tmp_path / "twice", layers=2 * LAYERS, shards=4))
    grown = {name: twice[name] - once[name] for name in once}
    assert all(growth <= TOLERANCE for growth in grown.values()), f"{grown} bytes, {TOLERANCE} allowed"
    # The smallest peak that an analysis of two layers of the largest role can have; less, and nothing was measured.
    assert once["null_residual"] >= 2 * ROLE
