"""Two tensors of one role: residuals, their closed-form null, and the ranks that chance gives."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from analyses.null_residual.pairs import IDENTICAL, Chance, FamilyPair, Rotations, Side, with_rank
from analyses.null_residual.pairs import likeness as likeness_of
from analyses.numerics import spectra
from tests.strategies import matrices, seeds

ROUNDING = 1e-12  # a few hundred eps: sums over at most 10⁵ entries of size ≤ 1


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def likeness(a: torch.Tensor, b: torch.Tensor) -> FamilyPair:
    return likeness_of(Side(a), Side(b))


def ranked(a: torch.Tensor, b: torch.Tensor, *, seed: int = 0):
    a, b = Side(a), Side(b)
    chance = Chance(*a.stored.shape, torch.Generator().manual_seed(seed), device="cpu")
    return with_rank(likeness_of(a, b), a, b, chance)


def disjoint_pair(rows: int, columns: int, modes: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Two orthogonal matrices on disjoint singular directions, and the effective rank of their residual.

    Each has `modes` equal singular values, so the normalised residual has twice as many.
    """
    generator = torch.Generator().manual_seed(seed)
    u = spectra.haar(rows, 2 * modes, generator)
    v = spectra.haar(columns, 2 * modes, generator)
    return u[:, :modes] @ v[:, :modes].mT, 3.0 * u[:, modes:] @ v[:, modes:].mT, 2.0 * modes


# --- known answers ------------------------------------------------------------------------------


def test_orthogonal_layers_have_a_residual_of_root_two_and_the_planted_effective_rank():
    a, b, planted = disjoint_pair(24, 40, 5, seed=1)
    pair = ranked(a, b)
    assert pair.cos == pytest.approx(0, abs=ROUNDING)
    assert pair.resid_norm == pytest.approx(math.sqrt(2), abs=ROUNDING)
    assert pair.scalar_resid == pytest.approx(1, abs=ROUNDING)
    assert pair.resid_eff_rank == pytest.approx(planted, rel=ROUNDING)
    assert pair.resid_spec_entropy == pytest.approx(math.log(planted), rel=ROUNDING)


@given(matrices(), st.floats(1e-3, 1e3))
def test_a_scaled_copy_leaves_no_residual_and_no_spectrum(a, scale):
    pair = ranked(a, scale * a)
    assert pair.resid_norm <= IDENTICAL
    assert pair.scalar_resid <= IDENTICAL
    assert pair.cos == pytest.approx(1, abs=ROUNDING)
    assert pair.resid_eff_rank is None
    assert pair.eff_rank_haar is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("factor", [1.7, -0.3])
def test_what_rounding_leaves_of_a_scaled_copy_is_no_full_rank_residual(dtype, factor):
    """Taken for a residual, it would fill all that chance fills, at side 40 and above."""
    exact = gaussian(40, 64)
    stored, copy = exact.to(dtype), (factor * exact).to(dtype)
    assert ranked(stored, copy).eff_rank_ratio is None
    noise = (copy.double() / factor - stored.double()) / stored.double().norm()
    full = spectra.effective_rank(torch.linalg.svdvals(noise)) / spectra.effective_rank(torch.linalg.svdvals(exact))
    assert float(full) > 0.95
    changed = copy + factor * 10 * torch.finfo(dtype).eps * gaussian(40, 64, seed=1).to(dtype)
    assert ranked(stored, changed).eff_rank_ratio is not None


def test_an_identical_copy_has_residual_exactly_zero():
    assert likeness(gaussian(7, 9), gaussian(7, 9)).resid_norm == 0


def test_a_negated_copy_is_at_distance_two_and_wholly_explained_by_a_scalar():
    pair = likeness(gaussian(7, 9), -2 * gaussian(7, 9))
    assert pair.resid_norm == pytest.approx(2, abs=ROUNDING)
    assert pair.scalar_explained == pytest.approx(1, abs=ROUNDING)
    assert pair.scalar_resid <= IDENTICAL


@pytest.mark.parametrize("angle", [1e-9, 1e-6, 1e-3, 0.5])
def test_small_residuals_keep_their_digits_where_root_two_minus_two_cos_cancels(angle):
    a, other = torch.eye(2, dtype=torch.float64)
    pair = likeness(a, math.cos(angle) * a + math.sin(angle) * other)
    assert pair.resid_norm == pytest.approx(2 * math.sin(angle / 2), rel=1e-6)  # inputs are rounded to eps/angle
    assert pair.scalar_resid == pytest.approx(math.sin(angle), rel=1e-6)


def test_independent_gaussian_layers_have_residual_root_two_within_sampling_error():
    rows, columns = 96, 160
    pair = ranked(gaussian(rows, columns, seed=1), gaussian(rows, columns, seed=2))
    assert abs(pair.cos) < 4 / math.sqrt(rows * columns)  # four standard deviations
    assert pair.resid_norm == pytest.approx(math.sqrt(2), abs=4 / math.sqrt(2 * rows * columns))
    assert abs(pair.z) < 4


def test_independent_gaussian_layers_leave_a_residual_of_pages_effective_rank():
    pair = ranked(gaussian(96, 160, seed=1), gaussian(96, 160, seed=2))
    assert pair.resid_eff_rank == pytest.approx(pair.eff_rank_page, rel=0.02)  # Page's 1/n terms and sampling error
    assert pair.eff_rank_shuffled == pytest.approx(pair.eff_rank_page, rel=0.02)


def test_shuffling_the_entries_of_a_low_rank_residual_fills_it_to_pages_effective_rank():
    a, b, planted = disjoint_pair(64, 96, 5, seed=1)
    pair = ranked(a, b)
    assert pair.resid_eff_rank == pytest.approx(planted, rel=ROUNDING)
    assert pair.eff_rank_shuffled == pytest.approx(pair.eff_rank_page, rel=0.03)  # one draw at side 64


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (32, 200), (150, 100)])
def test_pages_effective_rank_is_the_mean_over_iid_matrices(rows, columns):
    draws = torch.stack([gaussian(rows, columns, seed=s) for s in range(40)])
    entropy = spectra.energy_entropy(spectra.squared_singular_values(draws)).mean()
    assert float(entropy) == pytest.approx(spectra.page_entropy(rows, columns), rel=0.01)  # the stated 1 %


def test_unrelated_positive_gains_are_no_distance_of_root_two_apart():
    """The erratum's numbers: entries that spread by 14 % have cosine 0.98 and residual 0.2."""
    a, b = (1 + 0.143 * gaussian(4096, seed=s) for s in (1, 2))
    pair = likeness(a, b)
    assert pair.null_cos == pytest.approx(0.98, abs=0.002)
    assert pair.null_resid == pytest.approx(0.2, abs=0.01)
    assert pair.resid_norm == pytest.approx(pair.null_resid, abs=0.01)
    assert abs(pair.z) < 4


# --- invariants ---------------------------------------------------------------------------------


@given(matrices(), seeds)
def test_the_residuals_agree_with_the_cosine(a, seed):
    b = gaussian(*a.shape, seed=seed)
    pair = likeness(a, b)
    assert pair.resid_norm**2 == pytest.approx(2 - 2 * pair.cos, abs=ROUNDING)
    assert pair.scalar_resid**2 + pair.scalar_explained == pytest.approx(1, abs=ROUNDING)


@given(matrices(), seeds, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_the_scale_of_either_layer_changes_nothing(a, seed, left, right):
    b = gaussian(*a.shape, seed=seed)
    once, again = likeness(a, b), likeness(left * a, right * b)
    assert again.cos == pytest.approx(once.cos, abs=ROUNDING)
    assert again.null_cos == pytest.approx(once.null_cos, abs=ROUNDING)
    assert again.null_sd == pytest.approx(once.null_sd, abs=ROUNDING)


@given(st.integers(2, 40), seeds)
def test_z_is_pearson_times_root_of_n_minus_one(n, seed):
    pair = likeness(1 + gaussian(n, seed=seed), 1 + gaussian(n, seed=seed + 1))
    assert pair.cos - pair.null_cos == pytest.approx(pair.pearson * pair.null_sd * math.sqrt(n - 1), abs=ROUNDING)
    assert abs(pair.pearson) <= 1 + ROUNDING


@given(seeds)
def test_rotating_both_layers_alike_leaves_every_rank_but_the_shuffled_one(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = gaussian(10, 14, seed=seed), gaussian(10, 14, seed=seed + 1)
    u, v = spectra.haar(10, 10, generator), spectra.haar(14, 14, generator)
    once, again = ranked(a, b), ranked(u @ a @ v, u @ b @ v)
    assert again.resid_eff_rank == pytest.approx(once.resid_eff_rank, rel=1e-9)  # eps·cond of the Gram eigenvalues
    assert again.eff_rank_haar == pytest.approx(once.eff_rank_haar, rel=1e-9)


@given(matrices(max_side=10), seeds)
def test_ranks_lie_between_one_and_the_smaller_side_and_the_spectrum_holds_all_energy(a, seed):
    pair = ranked(a, gaussian(*a.shape, seed=seed))
    assume(abs(pair.cos) < 1 - 1e-9)  # 1×1 matrices are parallel, and so are two columns drawn by one seed
    for rank in (pair.resid_eff_rank, pair.eff_rank_shuffled, pair.eff_rank_haar):
        assert 1 - 1e-9 <= rank <= min(a.shape) + 1e-9
    assert pair.spectrum_error < 1e-12  # eps × side


def test_a_transposed_pair_has_the_same_ranks():
    a, b = gaussian(12, 20, seed=1), gaussian(12, 20, seed=2)
    assert ranked(a.mT, b.mT).resid_eff_rank == pytest.approx(ranked(a, b).resid_eff_rank, rel=1e-12)
    assert ranked(a.mT, b.mT).eff_rank_haar == pytest.approx(ranked(a, b).eff_rank_haar, rel=1e-12)


# --- comparison with brute force ----------------------------------------------------------------


@given(st.integers(2, 6), seeds, st.booleans())
def test_the_permutation_null_is_the_mean_and_spread_over_all_matchings(n, seed, positive):
    a, b = gaussian(n, seed=seed), gaussian(n, seed=seed + 1)
    if positive:
        a, b = a.exp(), b.exp()
    pair = likeness(a, b)
    every = torch.tensor(list(itertools.permutations(range(n))))
    cosines = (b[every] @ a) / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b))
    assert pair.null_cos == pytest.approx(float(cosines.mean()), abs=ROUNDING)
    assert pair.null_sd == pytest.approx(float(cosines.std(correction=0)), abs=1e-9)  # a variance near 0 loses half


@pytest.mark.parametrize(("rows", "columns"), [(12, 12), (9, 30), (30, 9), (300, 260)])
def test_the_factored_haar_null_is_the_dense_difference_of_rotated_matrices(rows, columns):
    small, large = sorted((rows, columns))
    sigma_a, sigma_b = (torch.linalg.svdvals(gaussian(rows, columns, seed=s)) for s in (1, 2))
    rotations = Rotations.draw(rows, columns, torch.Generator().manual_seed(5), device="cpu")
    generator, dense = torch.Generator().manual_seed(5), []
    for _ in range(len(rotations.left)):
        p, q = spectra.haar(small, small, generator), spectra.haar(large, small, generator)
        difference = torch.eye(small, large, dtype=torch.float64) * sigma_a[:, None] - p * sigma_b @ q.mT
        dense.append(float(spectra.effective_rank(torch.linalg.svdvals(difference))))
    assert rotations.effective_rank(sigma_a, sigma_b) == pytest.approx(np.mean(dense), rel=1e-9)


def test_the_haar_null_is_the_mean_over_freely_rotated_layers():
    rows, columns = 24, 36
    decay = torch.diag(torch.exp(-torch.arange(rows, dtype=torch.float64) / 6))  # low-rank, as real matrices are
    generator = torch.Generator().manual_seed(3)

    def rotated() -> torch.Tensor:
        return spectra.haar(rows, rows, generator) @ decay @ spectra.haar(columns, rows, generator).mT

    pairs = [ranked(rotated(), rotated(), seed=s) for s in range(40)]
    ratios = np.array([pair.eff_rank_ratio for pair in pairs])
    # One draw spreads by about 3 % here, the null's own ten draws by 1 %: four standard errors of the mean.
    assert ratios.mean() == pytest.approx(1, abs=4 * ratios.std() / math.sqrt(40))
    assert ratios.std() < 0.06


def test_independent_gaussian_layers_reach_their_haar_null():
    pair = ranked(gaussian(64, 96, seed=1), gaussian(64, 96, seed=2))
    assert pair.eff_rank_ratio == pytest.approx(1, abs=0.02)  # sampling error of one residual at this side


def test_layers_confined_to_one_half_of_the_stream_fall_short_of_their_haar_null():
    half = torch.diag((torch.arange(64) < 32).to(torch.float64))
    pair = ranked(gaussian(64, 96, seed=1), gaussian(64, 96, seed=2))
    confined = ranked(half @ gaussian(64, 96, seed=1), half @ gaussian(64, 96, seed=2))
    assert confined.eff_rank_ratio < 0.8 < pair.eff_rank_ratio


# --- rejected input -----------------------------------------------------------------------------


def test_a_constant_gain_has_a_cosine_but_no_correlation():
    pair = likeness(torch.full((5,), 0.1, dtype=torch.float64), gaussian(5).exp())
    assert pair.cos == pytest.approx(pair.null_cos, abs=ROUNDING)
    assert (pair.pearson, pair.z, pair.null_sd) == (None, None, 0.0)


def test_pages_level_is_not_stated_below_side_32():
    assert ranked(gaussian(31, 64, seed=1), gaussian(31, 64, seed=2)).eff_rank_page is None


@pytest.mark.parametrize(
    ("a", "b"), [(gaussian(3, 4), gaussian(4, 3)), (torch.zeros(3, 4, dtype=torch.float64), gaussian(3, 4))]
)
def test_unequal_shapes_and_zero_tensors_are_refused(a, b):
    with pytest.raises(ValueError, match="non-zero tensors of one shape"):
        likeness(a, b)


def test_sampled_spectra_of_small_matrices_are_exact():
    a, b = Side(gaussian(24, 40, seed=1)), Side(gaussian(24, 40, seed=2))
    exact, sampled = (
        with_rank(likeness_of(a, b), a, b, Chance(24, 40, torch.Generator().manual_seed(0), device="cpu"), vectors=v)
        for v in (None, torch.Generator().manual_seed(4))
    )
    assert exact == sampled and exact.resid_eff_rank_error == 0


@pytest.mark.parametrize("shape", [(1024, 1024), (1600, 1024)])
def test_sampled_ranks_are_the_exact_ones_within_their_errors_and_one_percent(shape):
    a = Side(gaussian(*shape, seed=1))
    b = Side(gaussian(*shape, seed=2) * torch.linspace(0.5, 1.5, shape[1], dtype=torch.float64))
    exact, sampled = (
        with_rank(likeness_of(a, b), a, b, Chance(*shape, torch.Generator().manual_seed(3), device="cpu"), vectors=v)
        for v in (None, torch.Generator().manual_seed(4))
    )
    assert sampled.spectrum_error is None and 0 < sampled.resid_eff_rank_error < 0.006 * sampled.resid_eff_rank
    assert abs(sampled.resid_eff_rank - exact.resid_eff_rank) < 3 * sampled.resid_eff_rank_error
    # The errors aimed at are 0.4 %, so 1 % is 2.5 of them; the seeds are fixed.
    for name in ("resid_eff_rank", "eff_rank_shuffled", "eff_rank_haar"):
        assert getattr(sampled, name) == pytest.approx(getattr(exact, name), rel=0.01), name
    assert abs(sampled.eff_rank_ratio - exact.eff_rank_ratio) < 3 * sampled.eff_rank_ratio_error  # of two estimates
