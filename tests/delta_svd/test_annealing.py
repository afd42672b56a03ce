"""The published hypothesis as a whole: a planted stack that has it, one that has not, and stacks too short to ask."""

import numpy as np
import torch

from analyses.delta_svd.annealing import annealing
from analyses.delta_svd.phases import phase_ranges
from analyses.delta_svd.shared_map import sums
from analyses.delta_svd.writes import layer_write
from analyses.numerics.prompt_groups import FOLDS, groups

TOKENS, HIDDEN = 320, 16
NAMES = {
    "shared_map_r2_ratio", "shared_map_p", "shared_map_power", "remainder_top1", "phase_c_rank_ratio",
    "phase_e_rank_share",
    "phase_difference", "phase_difference_p", "phase_cos_difference", "phase_cos_difference_p",
    "phase_difference_power", "phase_cos_difference_power",
}  # fmt: skip


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stack(layers: int, *, annealed: bool, hidden: int = HIDDEN):
    """Sums and directions of a stream in which phase C writes one map of rank four plus a direction a layer."""
    phases = phase_ranges(layers)
    shared = gaussian(1, hidden, 4) @ gaussian(2, 4, hidden) / hidden**0.5
    parts = groups([TOKENS // 20] * 20, FOLDS).slices
    h, found, directions = gaussian(0, TOKENS, hidden) * 3, [], []
    for layer in range(layers):
        v = torch.nn.functional.normalize(gaussian(100 + layer, hidden), dim=0)
        own = torch.outer(gaussian(200 + layer, TOKENS), v)
        if annealed and layer in phases["C"]:
            delta = h @ shared * 0.3 + own
        else:
            delta = h @ gaussian(300 + layer, hidden, hidden) * 0.05 + 3 * own
        found.append(sums(h, delta, parts, single=False))
        directions.append(layer_write(h, delta)[2][:8])
        h = h + delta
    return found, torch.stack(directions).numpy(), phases


def test_a_planted_annealing_is_seen_in_every_statistic():
    found, directions, phases = stack(40, annealed=True, hidden=32)
    record, metrics, absent = annealing(found, directions, phases, dimensions=32, seed=0)
    assert set(metrics) == NAMES and not absent
    assert metrics["shared_map_r2_ratio"].value > 0.9
    assert metrics["shared_map_p"].value == 1 / 27  # above all 26 other runs of fourteen
    assert metrics["remainder_top1"].value > 0.5
    assert metrics["phase_e_rank_share"].value > 0.8
    assert metrics["phase_difference"].value > 0 and metrics["phase_difference_p"].value <= 0.05
    assert len(record.shared_runs) == 26 and record.directions == 32
    top = np.array(record.remainder_top_singular)[list(phases["C"])]
    np.testing.assert_allclose(top, TOKENS**0.5, rtol=0.25)  # γ = 1, plus what the map's noise adds


def test_layers_without_a_common_map_do_not_pass():
    found, directions, phases = stack(40, annealed=False)
    _, metrics, _ = annealing(found, directions, phases, dimensions=HIDDEN, seed=0)
    assert metrics["shared_map_r2_ratio"].value is None or metrics["shared_map_r2_ratio"].value < 0.5
    assert metrics["phase_difference_p"].value > 0.05


def test_phases_too_short_to_ask_say_so():
    found, directions, phases = stack(4, annealed=True)
    record, metrics, absent = annealing(found, directions, phases, dimensions=HIDDEN, seed=0)
    share = metrics["phase_e_rank_share"]
    assert share.value is None and "phase E has 1 layers" in share.reason
    assert metrics["phase_difference"].value is None and metrics["phase_difference_p"].value is None
    assert set(metrics) == NAMES and len(record.own_r2) == 4
    assert "annealing.phase_ranks.E" in absent and record.phase_ranks["E"] is None


def test_a_text_too_short_for_maps_leaves_reasons_and_the_directions():
    _, directions, phases = stack(16, annealed=True)
    record, metrics, absent = annealing([None] * 16, directions, phases, dimensions=HIDDEN, seed=0)
    assert record.own_r2 is None and "fewer than 8 tokens" in absent["annealing.own_r2"]
    assert metrics["shared_map_r2_ratio"].value is None and metrics["phase_c_rank_ratio"].value is not None
