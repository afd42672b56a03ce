"""Stacked directions of phases: exact ranks, chance, and a planted phase among its segmentations."""

import math

import numpy as np
import pytest
import torch

from analyses.delta_svd.phases import phase_ranges
from analyses.delta_svd.stacks import Stacks, among, common, differences, equal_distance, jackknife, placements, power
from analyses.numerics.spectra import haar


def frames(layers: int, hidden: int, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([haar(hidden, 8, generator).T for _ in range(layers)]).numpy()


def planted(layers: int, hidden: int, shared: range, seed: int = 0) -> np.ndarray:
    """Random frames, but of the layers in `shared` all inside the same twelve dimensions."""
    found, inside = frames(layers, hidden, seed), haar(hidden, 12, torch.Generator().manual_seed(99)).T.numpy()
    for layer in shared:
        found[layer] = haar(12, 8, torch.Generator().manual_seed(layer)).T.numpy() @ inside
    return found


def test_equal_frames_have_the_rank_of_one_and_different_ones_of_all():
    one = frames(1, 64)
    same = Stacks(np.repeat(one, 5, 0), dimensions=64, seed=0)
    assert same.rank(range(5)) == pytest.approx(8, rel=1e-12)
    assert same.share(range(5)) == pytest.approx(1 / 5, rel=1e-12)
    apart = np.eye(64).reshape(8, 8, 64)
    assert Stacks(apart, dimensions=64, seed=0).rank(range(8)) == pytest.approx(64, rel=1e-12)
    assert Stacks(apart, dimensions=64, seed=0).share(range(8)) == pytest.approx(1, rel=1e-12)


def test_rank_is_that_of_the_stacked_rows():
    found = frames(6, 20, 3)
    sigma = np.linalg.svd(found[1:5].reshape(-1, 20), compute_uv=False)
    p = sigma**2 / np.sum(sigma**2)
    expected = math.exp(-np.sum(p * np.log(p)))
    assert Stacks(found, dimensions=20, seed=0).rank(range(1, 5)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("layers", "hidden"), [(3, 64), (12, 64), (8, 256)])
def test_random_frames_are_at_chance_and_planted_ones_far_below(layers: int, hidden: int):
    random = Stacks(frames(layers, hidden, 5), dimensions=hidden, seed=0)
    assert random.ratio(range(layers)) == pytest.approx(1, abs=0.03)  # one draw against the mean of eight
    shared = Stacks(planted(layers, hidden, range(layers)), dimensions=hidden, seed=0)
    assert shared.rank(range(layers)) < 12.1 and shared.ratio(range(layers)) < 0.7


def test_a_phase_that_shares_is_told_from_one_that_does_not_among_segmentations():
    phases = phase_ranges(32)
    found = planted(32, 128, phases["C"])
    top = found[:, 0]
    similarity = np.abs(top @ top.T)
    ranks, cosines = differences(Stacks(found, dimensions=128, seed=0), similarity, phases["C"], phases["E"], seed=0)
    # Wherever the run as long as E lies outside C, the difference is as large: one of 22 places of C.
    assert ranks.value > 0.5 and ranks.p <= 0.05 and ranks.others > 200
    assert cosines.value > 0.1 and cosines.p <= 0.05


def test_unrelated_layers_give_any_p():
    phases, p = phase_ranges(24), []
    for seed in range(12):
        found = frames(24, 64, seed)
        top = found[:, 0]
        stacks = Stacks(found, dimensions=64, seed=0)
        tests = differences(stacks, np.abs(top @ top.T), phases["C"], phases["E"], seed=0)
        p.append([test.p for test in tests])
    assert (np.array(p) <= 0.05).mean() <= 0.2 and 0.25 < np.mean(p) < 0.75


def test_placements_are_disjoint_runs_of_the_same_lengths():
    found = placements(7, range(1, 4), range(5, 7), 0)
    assert len(found) == len(set(found)) == 11 and (range(1, 4), range(5, 7)) not in found
    assert all((len(a), len(b)) == (3, 2) and not set(a) & set(b) for a, b in found)


def test_equal_distances_alone_are_compared():
    similarity = np.fromfunction(lambda i, j: 1 / (1 + abs(i - j)), (12, 12))  # depends on distance only
    assert equal_distance(similarity, range(0, 5), range(5, 12)) == pytest.approx(0, abs=1e-15)
    similarity[:5, :5] += 0.25
    assert equal_distance(similarity, range(0, 5), range(5, 12)) == pytest.approx(0.25, rel=1e-12)


def test_a_value_among_others_counts_itself_and_ties():
    assert among(2.0, [1.0, 2.0, 3.0]).p == 3 / 4
    assert among(2.0, [None, 1.0]).p == 1 / 2 and among(2.0, [None, 1.0]).others == 1
    assert among(None, [1.0]).p is None and among(1.0, []).p is None


def test_the_jackknife_over_layers_is_that_of_a_mean():
    values = np.array([1.0, 4.0, 2.0, 7.0])
    error = jackknife(lambda run: float(np.mean(values[list(run)])), range(4))
    assert error == pytest.approx(values.std(ddof=1) / 2, rel=1e-12)
    assert jackknife(lambda run: 0.0, range(2)) is None


def test_the_power_among_runs_is_the_share_that_stands_out_with_the_effect_planted():
    """Forty runs of four layers: an effect beyond their spread is seen in all, a small one seldom."""
    runs = [range(a, a + 4) for a in range(40)]
    felt = common(runs, runs)
    assert felt[3, 3] == 1 and felt[3, 5] == 0.5 and felt[3, 9] == 0
    values = np.random.default_rng(0).uniform(0, 0.1, 40).tolist()
    assert power(values, felt, 0.5) == 1.0
    by_hand = []
    for i in range(40):
        shown = np.array(values) + 0.05 * felt[i]
        by_hand.append((shown >= shown[i]).sum() / 40 <= 0.05)
    assert power(values, felt, 0.05) == np.mean(by_hand) < 0.8
    assert power([None, 1.0], np.eye(2), 1.0) is None
