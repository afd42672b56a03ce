"""Phases of depth: what they share, against chance and against other segmentations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyses.delta_svd.phases import (
    PLANTED,
    SEGMENTATIONS,
    capture,
    capture_left_out,
    intra_cross,
    phase_ranges,
    phase_test,
)


def similarity_of(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.abs(unit @ unit.T)


def random_directions(rng: np.random.Generator, layers: int, modes: int, hidden: int) -> np.ndarray:
    """(layer, mode, hidden), orthonormal within a layer, independent between layers."""
    q, _ = np.linalg.qr(rng.standard_normal((layers, hidden, modes)))
    return q.transpose(0, 2, 1)


def planted_phases(rng: np.random.Generator, layers: int, strength: float) -> np.ndarray:
    """Similarity of directions that share a vector per published phase, with this weight against noise."""
    vectors = rng.standard_normal((layers, 64))
    for phase in phase_ranges(layers).values():
        vectors[list(phase)] += strength * rng.standard_normal(64)
    return similarity_of(vectors)


def test_the_published_ranges_hold_at_64_layers():
    assert list(phase_ranges(64).values()) == [
        range(0, 7),
        range(7, 10),
        range(10, 32),
        range(32, 47),
        range(47, 59),
        range(59, 64),
    ]


@given(layers=st.integers(2, 200))
def test_phases_cover_every_layer_once_and_in_order(layers: int):
    ranges = phase_ranges(layers)
    assert list(ranges) == ["A", "B", "C", "D", "E", "tail"]
    assert list(itertools.chain(*ranges.values())) == list(range(layers))


def test_fractions_of_the_depth_come_out_at_a_hundred_layers():
    assert [phase.start for phase in phase_ranges(100).values()] == [0, 11, 15, 50, 75, 92]


def test_intra_and_cross_are_means_over_pairs():
    similarity = np.array([[1.0, 0.9, 0.2, 0.1], [0.9, 1, 0.4, 0.3], [0.2, 0.4, 1, 0.8], [0.1, 0.3, 0.8, 1]])
    assert intra_cross(similarity, range(0, 2)) == (pytest.approx(0.9), pytest.approx(0.25))
    assert intra_cross(similarity, range(3, 4)) == (None, pytest.approx(0.4))
    assert intra_cross(similarity, range(0, 4))[1] is None


def test_published_capture_is_one_by_fiat_for_up_to_eight_directions():
    rng = np.random.default_rng(0)
    for layers, modes in ((1, 8), (8, 1), (2, 4)):
        directions = random_directions(rng, layers, modes, 200)
        np.testing.assert_allclose(capture(directions), 1, rtol=0, atol=1e-13)  # rounding of a 200-term product
    assert capture(random_directions(rng, 9, 1, 200)).min() < 0.9


def test_published_capture_of_unrelated_layers_is_about_one_over_their_number():
    rng = np.random.default_rng(1)
    for layers in (4, 12):
        mean = np.mean([capture(random_directions(rng, layers, 8, 1000)).mean() for _ in range(8)])
        # The leading eight of 8·N squared singular values lie above the average, at most (1 + √(8N/D))² = 1.7 times.
        assert 1 / layers <= mean <= 1.7 / layers
        assert mean > 10 * 8 / 1000  # nowhere near the chance level that was published


def test_left_out_capture_of_random_directions_is_at_its_chance_level():
    rng = np.random.default_rng(2)
    for layers, modes, hidden, rank in ((6, 8, 60, 8), (3, 2, 40, 4)):
        draws = [capture_left_out(random_directions(rng, layers, modes, hidden)) for _ in range(100)]
        assert all(chance == rank / hidden for _, chance in draws)
        shares = np.array([shares.mean() for shares, _ in draws])
        error = shares.std() / math.sqrt(len(shares))
        assert abs(shares.mean() - rank / hidden) <= 4 * error  # four standard errors of the mean


def test_left_out_capture_finds_a_shared_direction_and_nothing_in_its_absence():
    rng = np.random.default_rng(3)
    directions = random_directions(rng, 5, 8, 300)
    directions[:, 0] = directions[0, 0]
    shares, _ = capture_left_out(directions)
    assert shares.min() > 0.95  # the shared one leads the stack; the others mix in by 1/√300
    directions[4, 0] = np.linalg.svd(directions.reshape(-1, 300))[2][-1]  # orthogonal to all
    assert capture_left_out(directions)[0][4] == pytest.approx(0, abs=1e-20)


def test_left_out_capture_has_nothing_to_say_of_a_single_layer():
    assert capture_left_out(random_directions(np.random.default_rng(4), 1, 8, 30)) is None


def test_zero_rows_of_a_low_rank_layer_count_for_nothing():
    directions = np.zeros((3, 8, 20))
    directions[:, 0] = np.eye(20)[:3]
    shares, chance = capture_left_out(directions)
    assert shares.tolist() == [0, 0, 0] and chance == 2 / 20


def brute_force(similarity: np.ndarray, starts: tuple[int, ...]) -> tuple[float, float]:
    """(difference, score) of one segmentation, pair by pair."""
    layers = len(similarity)
    label = [sum(start <= layer for start in starts) for layer in range(layers)]
    gaps, weights = [], []
    for distance in range(1, layers):
        pairs = [(i, i + distance) for i in range(layers - distance)]
        intra = [similarity[i, j] for i, j in pairs if label[i] == label[j]]
        cross = [similarity[i, j] for i, j in pairs if label[i] != label[j]]
        if intra and cross:
            gaps.append(np.mean(intra) - np.mean(cross))
            weights.append(len(intra) * len(cross) / (len(intra) + len(cross)))
    difference = np.average(gaps, weights=weights)
    return difference, difference * math.sqrt(sum(weights))


def test_the_phase_test_equals_a_pair_by_pair_count_over_all_segmentations():
    similarity = similarity_of(np.random.default_rng(5).standard_normal((9, 5)))
    phases = {"A": range(0, 2), "B": range(2, 2), "C": range(2, 6), "D": range(6, 9)}
    result = phase_test(similarity, phases, seed=0)
    scores = {starts: brute_force(similarity, starts)[1] for starts in itertools.combinations(range(1, 9), 2)}
    assert result.segmentations == math.comb(8, 2) - 1
    assert result.difference == pytest.approx(brute_force(similarity, (2, 6))[0], rel=1e-12)
    assert result.p == sum(score >= scores[2, 6] - 1e-12 for score in scores.values()) / len(scores)


def test_its_power_is_the_share_of_reordered_phases_in_which_the_planted_similarity_is_seen():
    similarity = similarity_of(np.random.default_rng(5).standard_normal((9, 5))) / 20  # the plant outweighs it in some
    phases = {"A": range(0, 2), "B": range(2, 2), "C": range(2, 6), "D": range(6, 9)}
    seen = []
    for lengths in set(itertools.permutations((2, 4, 3))) - {(2, 4, 3)}:
        starts = (lengths[0], lengths[0] + lengths[1])
        label = np.searchsorted(starts, np.arange(9), side="right")
        planted = similarity + PLANTED * (label[:, None] == label)
        here = {"A": range(0, starts[0]), "B": range(*starts), "C": range(starts[1], 9)}
        seen.append(phase_test(planted, here, seed=0).p <= 0.05)
    assert 0 < np.mean(seen)
    assert phase_test(similarity, phases, seed=0).power == np.mean(seen)


def test_similarity_that_depends_on_distance_alone_separates_no_phases():
    layer = np.arange(24)
    similarity = np.exp(-np.abs(layer[:, None] - layer) / 4)
    intra, cross = intra_cross(similarity, phase_ranges(24)["C"])
    assert intra > 3 * cross  # as published, it looks like a phase
    result = phase_test(similarity, phase_ranges(24), seed=0)
    assert result.difference == pytest.approx(0, abs=1e-14) and result.p == 1  # all segmentations tie


def test_p_is_uniform_where_layers_share_nothing():
    rng = np.random.default_rng(6)
    p = [phase_test(similarity_of(rng.standard_normal((16, 24))), phase_ranges(16), seed=k).p for k in range(120)]
    # 120 draws: the 1 % point of Kolmogorov and Smirnov's distance is 0.15.
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_p_is_not_small_by_drift_alone():
    rng = np.random.default_rng(7)
    walks = (np.cumsum(rng.standard_normal((16, 24)), axis=0) for _ in range(60))
    p = np.array([phase_test(similarity_of(walk), phase_ranges(16), seed=k).p for k, walk in enumerate(walks)])
    assert (p <= 0.05).mean() <= 0.12  # 60 draws at 5 %: at most 7 in 98 % of cases


def test_p_is_small_where_phases_are_planted():
    rng = np.random.default_rng(8)
    result = phase_test(planted_phases(rng, 24, strength=2.0), phase_ranges(24), seed=0)
    assert result.p <= 0.001 and result.difference > 0.3
    assert result.segmentations == SEGMENTATIONS  # of 33,649 that exist


def test_a_sampled_null_is_the_seeds_alone():
    similarity = planted_phases(np.random.default_rng(9), 24, strength=0.3)
    first, again = (phase_test(similarity, phase_ranges(24), seed=11) for _ in range(2))
    assert first == again
    assert phase_test(similarity, phase_ranges(24), seed=12).p != first.p


def test_a_shallow_model_has_few_segmentations_and_may_have_nothing_to_compare():
    few = phase_test(similarity_of(np.random.default_rng(10).standard_normal((5, 6))), phase_ranges(5), seed=0)
    assert few.segmentations < 100
    nothing = phase_test(np.eye(3), {"A": range(0, 1), "B": range(1, 2), "C": range(2, 3)}, seed=0)
    assert (nothing.difference, nothing.p, nothing.segmentations) == (None, None, 0)
    one_phase = phase_test(np.eye(3), {"A": range(0, 3)}, seed=0)
    assert one_phase.p is None
