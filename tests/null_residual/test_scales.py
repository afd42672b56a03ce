"""Log-scale tracks: known modes, what must not matter, and the two nulls."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.null_residual import scales
from tests.strategies import seeds


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def wandering(families: int, layers: int, *, seed: int) -> dict[str, np.ndarray]:
    return {f"f{i}": t for i, t in enumerate(np.cumsum(rng(seed).standard_normal((families, layers)), axis=1))}


def one_mode(families: int, layers: int, *, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tracks that all follow one course with weights of their own, and these weights at unit length."""
    course = rng(seed).standard_normal(layers)
    weights = rng(seed + 1).uniform(0.5, 2, families)
    return {f"f{i}": 3 + w * course for i, w in enumerate(weights)}, weights / np.linalg.norm(weights)


# --- known answers ------------------------------------------------------------------------------


@given(st.integers(2, 8), st.integers(3, 20), seeds)
def test_tracks_on_one_course_have_one_mode_with_their_weights_as_loadings(families, layers, seed):
    tracks, weights = one_mode(families, layers, seed=seed)
    pca = scales.scale_pca(tracks, seed=0, standardise=False)
    assert pca.explained[0] == pytest.approx(1, abs=1e-12)  # rounding
    assert np.array(pca.loadings)[:, 0] == pytest.approx(weights, abs=1e-9)
    assert scales.scale_pca(tracks, seed=0, standardise=True).explained[0] == pytest.approx(1, abs=1e-12)


def test_the_first_share_of_two_standardised_tracks_is_half_of_one_plus_their_correlation():
    tracks = wandering(2, 15, seed=4)
    r = np.corrcoef(*tracks.values())[0, 1]
    pca = scales.scale_pca(tracks, seed=0, standardise=True)
    assert pca.explained == pytest.approx([(1 + abs(r)) / 2, (1 - abs(r)) / 2], abs=1e-12)


def test_one_loud_family_carries_the_raw_first_mode_and_not_the_standardised_one():
    tracks = {f"f{i}": t for i, t in enumerate(0.1 * rng(1).standard_normal((7, 24)))}
    tracks["loud"] = rng(2).standard_normal(24)
    assert scales.scale_pca(tracks, seed=0, standardise=False).explained[0] > 0.9
    standardised = scales.scale_pca(tracks, seed=0, standardise=True)
    assert standardised.explained[0] < 0.5
    assert standardised.explained[0] < standardised.parallel_95[0] + 0.05


def test_loadings_and_scores_rebuild_the_centred_tracks():
    tracks = wandering(5, 9, seed=7)
    pca = scales.scale_pca(tracks, seed=0, standardise=False)
    rebuilt = np.array(pca.loadings) @ np.array(pca.scores).T  # (family, layer)
    raw = np.stack(list(tracks.values()))
    assert rebuilt == pytest.approx(raw - raw.mean(axis=1, keepdims=True), abs=1e-12)
    assert np.square(pca.singvals).sum() == pytest.approx(np.square(rebuilt).sum(), rel=1e-12)
    assert pca.families == list(tracks)


# --- invariants ---------------------------------------------------------------------------------


@given(st.integers(2, 6), st.integers(3, 16), seeds, st.floats(1e-3, 1e3))
def test_the_overall_scale_of_a_family_does_not_matter(families, layers, seed, factor):
    norms = {f: np.exp(t) for f, t in wandering(families, layers, seed=seed).items()}
    scaled = norms | {"f0": factor * norms["f0"]}
    for standardise in (False, True):
        once, again = (
            scales.scale_pca(scales.log_tracks(n)[0], seed=0, standardise=standardise).explained
            for n in (norms, scaled)
        )
        assert again == pytest.approx(once, abs=1e-9)  # rounding of the logarithms, relative to their spread


@given(seeds, st.floats(0.1, 10))
def test_how_strongly_one_family_moves_does_not_matter_once_standardised(seed, factor):
    tracks = wandering(4, 12, seed=seed)
    again = scales.scale_pca(tracks | {"f0": factor * tracks["f0"]}, seed=0, standardise=True)
    assert again.explained == pytest.approx(scales.scale_pca(tracks, seed=0, standardise=True).explained, abs=1e-9)


@given(seeds)
def test_each_modes_largest_loading_is_positive(seed):
    for column in np.array(scales.scale_pca(wandering(5, 9, seed=seed), seed=0, standardise=False).loadings).T:
        assert column[np.abs(column).argmax()] > 0


def test_the_same_seed_gives_the_same_levels_and_another_seed_nearly_the_same():
    tracks = wandering(6, 20, seed=3)
    levels = [scales.scale_pca(tracks, seed=s, standardise=True).parallel_95[0] for s in (0, 0, 1)]
    assert levels[0] == levels[1] != levels[2]
    assert levels[2] == pytest.approx(levels[0], abs=0.02)  # Monte Carlo error of 1000 draws


# --- nulls against brute force ------------------------------------------------------------------


def test_parallel_analysis_of_two_short_tracks_is_the_quantile_over_all_orders():
    tracks = wandering(2, 6, seed=5)
    first, second = tracks.values()
    shares = [(1 + abs(np.corrcoef(first, second[list(p)])[0, 1])) / 2 for p in itertools.permutations(range(6))]
    level = scales.scale_pca(tracks, seed=0, standardise=True).parallel_95[0]
    # The 95 % level of 1000 draws lies between the exact 93 and 97 % levels (three binomial sd of 0.7 points).
    assert np.quantile(shares, 0.93) <= level <= np.quantile(shares, 0.97)


def test_shuffling_keeps_every_tracks_values_and_walking_keeps_every_tracks_step_sizes():
    tracks = np.stack(list(wandering(3, 8, seed=6).values()))
    shuffled, walks = scales._null_tracks(tracks, seed=0)
    assert shuffled.shape == walks.shape == (scales.DRAWS, 3, 8)
    assert np.sort(shuffled, axis=-1) == pytest.approx(np.broadcast_to(np.sort(tracks), shuffled.shape), abs=0)
    steps = np.sort(np.abs(np.diff(walks, axis=-1)), axis=-1)
    assert steps == pytest.approx(np.broadcast_to(np.sort(np.abs(np.diff(tracks))), steps.shape), abs=1e-12)
    assert abs(walks[:, :, -1].mean()) < 4 * walks[:, :, -1].std() / math.sqrt(3 * scales.DRAWS)  # no drift


def test_independent_noise_passes_parallel_analysis_in_about_one_case_in_twenty():
    passed = 0
    for seed in range(100):
        tracks = {f"f{i}": t for i, t in enumerate(rng(seed).standard_normal((4, 12)))}
        pca = scales.scale_pca(tracks, seed=seed, standardise=True)
        passed += pca.explained[0] > pca.parallel_95[0]
    assert passed <= 12  # binomial(100, 0.05) exceeds 12 once in 700


def test_unrelated_random_walks_pass_parallel_analysis_and_not_the_walk_null():
    beyond_shuffled = beyond_walks = 0
    for seed in range(50):
        pca = scales.scale_pca(wandering(6, 24, seed=seed), seed=seed, standardise=True)
        beyond_shuffled += pca.explained[0] > pca.parallel_95[0]
        beyond_walks += pca.explained[0] > pca.walk_95[0]
    assert beyond_shuffled > 40  # drift alone beats shuffled tracks
    assert beyond_walks <= 8  # binomial(50, 0.05) exceeds 8 once in 2000


# --- what is left out ---------------------------------------------------------------------------


def test_a_family_that_is_missing_or_zero_somewhere_is_left_out_with_the_reason():
    tracks, excluded = scales.log_tracks({"q_proj": [1.0, 2.0], "k_proj": [1.0, 0.0], "q_norm": None})
    assert list(tracks) == ["q_proj"]
    assert tracks["q_proj"] == pytest.approx([0.0, math.log(2)])
    assert list(excluded) == ["k_proj"]
    assert "all zero in 1 layer" in excluded["k_proj"]


def test_constant_tracks_have_no_standardised_form_but_a_raw_one():
    tracks = wandering(3, 8, seed=1) | {"still": np.full(8, 0.1)}
    assert scales.scale_pca(tracks, seed=0, standardise=True).families == ["f0", "f1", "f2"]
    raw = scales.scale_pca(tracks, seed=0, standardise=False)
    assert raw.families == ["f0", "f1", "f2", "still"]
    assert np.array(raw.loadings)[3, :3] == pytest.approx(0, abs=1e-12)


def test_nothing_that_moves_has_no_shares():
    pca = scales.scale_pca({"a": np.ones(5), "b": np.zeros(5)}, seed=0, standardise=False)
    assert (pca.explained, pca.parallel_95, pca.walk_95) == (None, None, None)
    assert pca.singvals == [0.0, 0.0]


@pytest.mark.parametrize("tracks", [{}, {"a": np.arange(5.0)}])
def test_fewer_than_two_families_have_no_common_mode(tracks):
    assert scales.scale_pca(tracks, seed=0, standardise=False) is None


def test_a_track_that_moves_by_rounding_alone_is_not_blown_up_to_unit_variance():
    tracks = np.stack([np.full(6, 0.1), np.arange(6.0)])
    tracks[0, 2] = np.nextafter(0.1, 1)
    assert np.abs(scales.prepared(tracks, True)[0]).max() == 0
    assert scales.prepared(tracks, True)[1].std() == pytest.approx(1, abs=1e-12)
