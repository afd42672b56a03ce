"""Statistics of writes and states under every exact map, on a stack deep enough for the published phases.

The maps of `catalogue` on twelve layers: phase C has four, phase E two. The library's norms compute in float32
whatever the model's dtype, 6e-8 a step; p-values count exceedances and must not move at all.
"""

import dataclasses

import numpy as np
import pytest
import torch

from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.null_residual import grams
from analyses.numerics.intervals import left_out
from analyses.run.suite import records_of
from analyses.schedule_fit.chance import best_r2
from analyses.schedule_fit.forms import ONE_PIECE
from analyses.weights.checkpoint import open_checkpoint
from checks.maps import invariance
from checks.maps.catalogue import FOLD_GAINS, MAPS, ROTATE_STREAM
from checks.maps.exact import EXACT, Composition, CoordinateMap, compose
from checks.twins.roles import Role
from checks.twins.twins import SHUFFLED, Twin
from tests.few_draws import few_draws
from tests.maps.test_invariance import numbers
from tests.tiny import tiny_checkpoint

SIZES = dict(layers=12, hidden_size=36, num_attention_heads=9, tie_word_embeddings=False)
MODELS = {
    "llama": dict(SIZES, num_key_value_heads=3, head_dim=4, initializer_range=0.1),
    "qwen3": dict(SIZES, num_key_value_heads=3, head_dim=4, initializer_range=0.1),
    "gpt2": SIZES,
    "gpt_neox": SIZES,
}
TEXT = dataclasses.replace(load_calibration(), texts=load_calibration().texts[:4])
BY_FORWARD = 1e-6  # of numbers of order one, and relative for larger ones; the library's norms take roots in float32
SMALL_EPS = dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"), 1e-6)  # as large models have
BY_EPS = 1e-4  # where the map passes through a norm that takes a scale off: its eps over the mean square it sees


ANALYSES = ("delta_svd", "residual_stream")


def measured(checkpoint) -> dict:
    with few_draws(), left_out():
        return records_of(checkpoint, TEXT, Settings(device="cpu", dtype="float64"), ANALYSES)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict:
    root, found = tmp_path_factory.mktemp("deep"), {}
    for name, sizes in MODELS.items():
        checkpoint = open_checkpoint(str(tiny_checkpoint(root / name, name, **SMALL_EPS | sizes)))
        found[name] = checkpoint, measured(checkpoint)
    return found


def ours() -> list[tuple[str, str]]:
    """(analysis, path) of the statistics that no map moves; a plateau is one of massive tokens, which these lack."""
    found = [(a, path) for a in ANALYSES for path, moved in invariance.STATISTICS[a].items() if moved.invariant]
    return [(analysis, path) for analysis, path in found if "plateau_rho" not in path]


def maps(checkpoint) -> list[CoordinateMap | Composition]:
    """Every map that the model has: those that move logits by rounding alone one after the other, the rest alone.

    Their draws know nothing of each other, so what one moves no other moves back; save gain folding, which is therefore
    left to the rotation of the stream that it is part of.
    """
    assert FOLD_GAINS in ROTATE_STREAM.parts and ROTATE_STREAM.undefined(checkpoint) is None
    there = [one for one in MAPS if one is not FOLD_GAINS and one.undefined(checkpoint) is None]
    joined = [one for one in there if isinstance(one, CoordinateMap) and one.tolerance(checkpoint) <= EXACT]
    names = ", then ".join(one.name for one in joined)
    return [compose(names, "", *joined), *(one for one in there if one not in joined)]


@pytest.mark.parametrize("name", MODELS)
def test_no_exact_map_moves_what_layers_do_and_write(bases, name: str):
    checkpoint, before = bases[name]
    for analysis, path in ours():
        values = list(numbers(before[analysis], path))
        assert values and all(value is not None for value in values), f"{path}: nothing there to move"
    for one in maps(checkpoint):
        after = measured(one.apply(checkpoint, 1))
        limit = BY_FORWARD if one.tolerance(checkpoint) <= EXACT else BY_EPS
        for analysis, path in ours():
            a, b = (np.array(list(numbers(found[analysis], path)), dtype=float) for found in (before, after))
            assert np.abs(a - b).max() <= limit * max(1.0, np.abs(a).max()), (one.name, path, a, b)


def test_other_weights_do_move_them(bases):
    for analysis, path in ours():
        if "_p." in path or "_weight" in path:  # of a few runs, or all or nothing: may well be the same
            continue
        a, b = (np.array(list(numbers(bases[name][1][analysis], path)), dtype=float) for name in ("llama", "qwen3"))
        assert np.abs(a - b).max() > 1e-3 * np.abs(a).max(), path


def cooled(twin, role: Role, value: torch.Tensor) -> torch.Tensor:
    """What reads and the gains of queries by a tenth less a layer, so that every invariant scale follows a law."""
    if role.bias or role.part not in ("q_proj", "q_norm", "v_proj", "gate_proj", "up_proj"):
        return value
    return value.double() * 0.9**role.layer


def law_of_scales(checkpoint) -> float:
    tracks: dict[str, list[float]] = {}
    for layer in range(checkpoint.shape.layers):
        for branch in grams.branches(checkpoint):
            for name, scale in grams.layer_grams(checkpoint, branch, layer, device="cpu").scales.items():
                tracks.setdefault(name, []).append(scale)
    return float(best_r2(np.log([*tracks.values()]), ONE_PIECE).min())


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_no_exact_map_moves_a_law_that_the_scales_follow(bases, name: str):
    change = Twin(name="cooled", preserves="", destroys="", change=cooled)
    checkpoint = change.apply(bases[name][0], 0)
    before = law_of_scales(checkpoint)
    assert 0.8 < before < 1  # a constant explains nothing
    for one in (m for m in MAPS if m.undefined(checkpoint) is None):
        assert law_of_scales(one.apply(checkpoint, 1)) == pytest.approx(before, abs=1e-9), one.name  # float64 sums
    assert abs(law_of_scales(SHUFFLED.apply(checkpoint, 0)) - before) > 1e-4
