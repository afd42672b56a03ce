"""Effective ranks from products alone: planted spectra, the honesty of the error, the transforms that rotate."""

import math

import pytest
import torch

from analyses.numerics import lanczos, spectra
from analyses.numerics.lanczos import Mixing, dense, hartley, rotated_difference, sampled_entropy

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_many_vectors_as_it_takes(monkeypatch):
    """Below side 1,024 the exact spectrum is as fast, so that sampling gives up; here it is to be looked at."""
    monkeypatch.setattr(lanczos, "SHARE", 4)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_entropy(matrix: torch.Tensor) -> float:
    return float(spectra.spectral_entropy(torch.linalg.svdvals(matrix)))


def sampled(matrix: torch.Tensor, *, seed: int = 0) -> lanczos.Sampled | None:
    energy = float(matrix.square().sum())
    generator = torch.Generator().manual_seed(seed)
    return sampled_entropy(dense(matrix.float()), min(matrix.shape), energy, generator, CPU)


# --- known answers ------------------------------------------------------------------------------


def test_an_orthogonal_matrix_fills_every_direction_without_error():
    found = sampled(spectra.haar(600, 512, torch.Generator().manual_seed(1)))
    assert found.entropy == pytest.approx(math.log(512), abs=1e-5)  # float32 products
    assert found.error < 1e-4


@pytest.mark.parametrize("shape", [(512, 512), (512, 1200), (1200, 512)])
def test_the_error_is_the_spread_of_the_estimate_around_the_exact_entropy(shape):
    matrix = gaussian(*shape, seed=1)
    exact = exact_entropy(matrix)
    scores = torch.tensor([(s.entropy - exact) / s.error for s in (sampled(matrix, seed=i) for i in range(24))])
    # Standard deviation of 24 scores: 1 ± 0.15; their mean: 0 ± 0.2, and half of the rule's bias that the error counts.
    assert 0.6 < float(scores.std()) < 1.45
    assert abs(float(scores.mean())) < 0.9


# --- invariants ---------------------------------------------------------------------------------


def test_the_scale_and_the_orientation_of_a_matrix_change_nothing():
    matrix = gaussian(512, 700, seed=2)
    one, other = sampled(matrix), sampled(300 * matrix.mT)
    assert other.entropy == pytest.approx(one.entropy, abs=1e-5)  # float32 products
    assert other.error == pytest.approx(one.error, rel=1e-3)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    matrix = gaussian(512, 600, seed=3)
    assert sampled(matrix) == sampled(matrix) != sampled(matrix, seed=1)


@pytest.mark.parametrize("side", [1, 2, 7, 8, 96])
def test_a_mixing_is_orthogonal_and_transposed_by_its_transpose(side):
    mixing = Mixing.draw(side, torch.Generator().manual_seed(0), CPU)
    matrix = mixing(torch.eye(side)).mT  # rows v → rows Pv, so the rows of the identity give Pᵀ
    # float32 rounding of two transforms
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(side), rtol=0, atol=1e-5)
    torch.testing.assert_close(mixing.transposed(torch.eye(side)), matrix, rtol=0, atol=1e-5)
    torch.testing.assert_close(hartley(hartley(matrix)), matrix, rtol=0, atol=1e-5)


# --- comparison with a dense reference ----------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 40), (40, 66), (66, 40)])
def test_the_rotated_difference_is_that_of_the_dense_rotations(shape):
    a, b = gaussian(*shape, seed=1), gaussian(*shape, seed=2)
    left, right = (Mixing.draw(n, torch.Generator().manual_seed(n), CPU) for n in sorted(shape))
    rotations = [mixing(torch.eye(n)).mT.double() for mixing, n in ((left, min(shape)), (right, max(shape)))]
    upright = [x if shape[0] <= shape[1] else x.mT for x in (a, b)]
    difference = upright[0] - rotations[0] @ upright[1] @ rotations[1].mT
    rows = gaussian(3, min(shape), seed=3).float()
    found = rotated_difference(a.float(), b.float(), left, right)(rows)
    expected = rows.double() @ difference @ difference.mT
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_mixed_matrices_of_low_rank_fill_as_many_directions_as_haar_rotated_ones():
    """Axis-aligned factors, the worst case: without mixing the two share all their directions."""
    side = 512
    sigma = torch.exp(-torch.arange(side, dtype=torch.float64) / 150)
    a = torch.diag(sigma / sigma.norm())
    generator = torch.Generator().manual_seed(5)
    mixings = [Mixing.draw(side, generator, CPU) for _ in range(2)]
    found = sampled_entropy(rotated_difference(a.float(), a.float(), *mixings), side, 2.0, generator, CPU)
    rotations = [spectra.haar(side, side, generator) for _ in range(2)]
    expected = exact_entropy(a - rotations[0] @ a @ rotations[1].mT)
    assert found is not None and found.entropy == pytest.approx(expected, abs=0.01)  # 2.5 standard errors
    assert abs(exact_entropy(a) - expected) > 0.1


# --- what is refused ----------------------------------------------------------------------------


def test_a_steep_spectrum_is_left_to_the_exact_computation():
    generator = torch.Generator().manual_seed(1)
    sigma = torch.arange(1, 513, dtype=torch.float64) ** -1.0
    assert sampled(spectra.haar(512, 512, generator) * sigma @ spectra.haar(512, 512, generator)) is None


def test_a_matrix_of_one_direction_does_not_break_the_recurrence():
    found = sampled(torch.outer(gaussian(512, seed=1), gaussian(600, seed=2)))
    assert found.entropy == pytest.approx(0, abs=1e-4)  # float32 products
