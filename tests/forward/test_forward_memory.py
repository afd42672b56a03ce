"""What the probes of a forward pass hold: a fixed number of arrays of one layer, whatever the depth.

Measured in a process of its own with the C library told to hand back freed blocks, as in test_memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analyses.numerics.prompt_groups import FOLDS
from checks.bench.checkpoints import Size, write

TOKENS, HIDDEN = 4096, 256  # of the states that the probe of writes is shown
ARRAY = TOKENS * HIDDEN * 8  # bytes of one of them in float64
# h, δ and one more in float64; half an array for a float32 selection, a quarter for Gram matrices, their copies and
# vectors (four of HIDDEN², a sixteenth of an array each). Where the third is gone, the sums of the layer's normal
# equations take its place (15 HIDDEN², 0.94). The seven states themselves in float64 would be 7.
ALLOWED = 3.75 * ARRAY

SCRIPT = """
import json, math, sys
import torch
from analyses.attention_stats.attention_probe import AttentionProbe
from analyses.weights.checkpoint import open_checkpoint
from analyses.delta_svd.delta_probe import DeltaProbe
from analyses.forward.probe import LayerStates
from checks.bench.passes import Pass
from checks.bench.stage import peak, peak_from_here

def grown(work):
    before = peak_from_here()
    work()
    return (peak() - before) * 1024**2

def states(tokens, hidden):
    h, attention, feed_forward, again, once_more = torch.randn(5, tokens, hidden).unbind()
    return LayerStates(
        hidden=h, attention=attention, feed_forward=feed_forward, output=h + attention, next_input=h + attention,
        next_attention=again, next_feed_forward=once_more,
    )

tokens, hidden, *folders = sys.argv[1:]
found = {}
of_one = states(int(tokens), int(hidden))
for name, layer_norm in (("plain", False), ("centred", True)):
    probe = DeltaProbe(layer_norm=layer_norm)
    probe.begin(torch.ones(1, 8, dtype=torch.bool))
    probe.layer(0, states(8, int(hidden)))  # what is set up on first use
    probe.begin(torch.ones(1, int(tokens), dtype=torch.bool))
    found[name] = math.inf
    for _ in range(3):
        probe.layer(0, of_one)  # with a layer before it that it is compared with
        found[name] = min(found[name], grown(lambda: probe.layer(1, of_one)))
for folder in folders:
    of = Pass(open_checkpoint(folder), "sdpa", "one")
    of.run([AttentionProbe(), DeltaProbe(layer_norm=False)])
    runs = [grown(lambda: of.run([AttentionProbe(), DeltaProbe(layer_norm=False)])) for _ in range(5)]
    found[folder] = min(runs)  # what the system pages out and in again adds to some runs, what is kept to all of them
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read as Linux gives it")
def test_probes_hold_three_arrays_of_one_layer_in_float64_and_only_sums_grow_with_depth(tmp_path: Path):
    size = {"hidden": 128, "heads": 4, "kv_heads": 2, "head_dim": 32, "feed_forward": 256}
    folders = [str(write(Size(layers=layers, **size), tmp_path / f"{layers}")) for layers in (2, 14)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(TOKENS), str(HIDDEN), *folders]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    for name in ("plain", "centred"):
        assert 2 * ARRAY <= found[name] <= ALLOWED, f"{name}: {found[name] / ARRAY:.2f} arrays"
    shallow, deep = (found[folder] for folder in folders)
    sums = 12 * 3 * FOLDS * 128**2 * 8  # bytes of twelve layers' normal equations in all 128 directions: 23 MiB
    kept = 12 * 1024 * 128 * 4  # bytes of one state of twelve layers more, in float32, if a probe kept it: 6 MiB
    # Half of that, where what the system pages in and out moves either side by 1 MiB (seen in 25 runs)
    assert sums / 2 <= deep - shallow <= sums + kept / 2, f"{deep - shallow} bytes more for twelve more layers"
