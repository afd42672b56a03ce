"""Shared linear algebra against closed forms, dense float64 computations and simulation."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from analyses import head_grams
from analyses.head_grams import all_pairs
from analyses.null_residual import matching
from analyses.numerics import lanczos, spectra
from analyses.numerics.spectra import (
    EPS,
    Householder,
    _by_eigenvalues,
    _by_gram,
    effective_rank,
    energy_entropy,
    gram,
    haar,
    leading_modes,
    page_entropy,
    product_singular_values,
    product_svd,
    right_svd,
    singular_values,
    spectral_entropy,
    squared_singular_values,
    symmetric_eigenvalues,
)
from analyses.weights.checkpoint import open_checkpoint
from tests.strategies import head_factors, matrices, seeds
from tests.tiny import tiny_checkpoint

MARGIN = 16  # constant in front of size × eps × norm: backward errors of LAPACK are a small multiple of it


def rounding(*factors: torch.Tensor) -> float:
    """Rounding bound of a computation on these matrices: size × eps × the product of their norms."""
    size = sum(sum(factor.shape[-2:]) for factor in factors)
    return MARGIN * size * EPS * math.prod(float(factor.norm()) for factor in factors)


def decomposed(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`product_svd` of one pair of factors or of each, with all vectors."""
    of_right = Householder.of(right.unsqueeze(-3))
    sigma, vt = product_svd(Householder.of(left), of_right, min(right.shape[-2:]))
    return sigma.squeeze(-2), vt.squeeze(-3)


def packed(rows: torch.Tensor) -> Householder:
    """Of the shapes that `Householder.of` gives, where nothing can be factored."""
    return Householder(rows.mT, rows[..., 0], rows[..., : rows.shape[-2]])


def signed_eigenvalues(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return symmetric_eigenvalues(Householder.of(left), right.unsqueeze(-3)).squeeze(-2)


# --- known answers ------------------------------------------------------------------------------


def test_effective_rank_of_equal_singular_values_is_their_number():
    # eps × a few operations on numbers of order 1
    assert effective_rank(torch.full((5,), 3.0, dtype=torch.float64)).item() == pytest.approx(5, rel=1e-14)


def test_effective_rank_of_a_planted_spectrum_is_the_exponential_of_its_entropy():
    shares = [0.5, 0.25, 0.125, 0.125]  # entropy 1.75 ln 2 by hand
    left, right = haar(9, 4, torch.Generator().manual_seed(1)), haar(7, 4, torch.Generator().manual_seed(2))
    sigma = torch.tensor(shares, dtype=torch.float64).sqrt()
    matrix = (left * sigma) @ right.mT  # (out, in), of rank 4 with known singular values
    # The 3 zero modes are left with energies of order eps, each adding eps·ln(1/eps).
    assert energy_entropy(squared_singular_values(matrix)).exp().item() == pytest.approx(2**1.75, abs=1e-12)


def test_entropy_of_a_single_mode_is_zero_and_of_none_is_not_a_number():
    assert spectral_entropy(torch.tensor([2.0, 0.0, 0.0])).item() == 0
    assert math.isnan(spectral_entropy(torch.zeros(3)).item())


def test_eigenvalues_of_a_rank_one_head_are_inner_product_plus_minus_norms():
    a = torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 3.0, -4.0]], dtype=torch.float64)
    # g = aᵀb: eigenvalues of g + gᵀ are a·b ± ‖a‖‖b‖ = −2 ± 15. Error: a few eps × 17.
    torch.testing.assert_close(
        signed_eigenvalues(a, b), torch.tensor([-17.0, 13.0], dtype=torch.float64), rtol=0, atol=1e-13
    )


def test_page_entropy_of_a_square_matrix_is_half_a_nat_below_the_maximum():
    assert page_entropy(64, 64) == math.log(64) - 0.5


# --- invariants ---------------------------------------------------------------------------------


@given(matrices())
def test_entropy_lies_between_zero_and_the_logarithm_of_the_smaller_side_and_ignores_scale(matrix):
    sigma = torch.linalg.svdvals(matrix)
    entropy = spectral_entropy(sigma).item()
    # 16·eps·side: sums of `side` terms of order 1
    assert -1e-13 <= entropy <= math.log(len(sigma)) + 1e-13
    assert spectral_entropy(sigma * 2**20).item() == entropy  # powers of two are exact


@given(matrices())
def test_jordan_wielandt_eigenvalues_are_plus_minus_the_singular_values(matrix):
    rows, columns = matrix.shape
    # g = [I; 0]·A·[0, I] has g + gᵀ = [[0, A], [Aᵀ, 0]].
    left = torch.cat([torch.eye(rows, dtype=torch.float64), torch.zeros(rows, columns, dtype=torch.float64)], dim=1)
    right = torch.cat([torch.zeros(rows, rows, dtype=torch.float64), matrix], dim=1)
    sigma = torch.linalg.svdvals(matrix)
    expected = torch.cat([sigma, -sigma, torch.zeros(2 * (rows - len(sigma)), dtype=torch.float64)]).sort().values
    found = signed_eigenvalues(left, right).sort().values
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(left, right))


def test_haar_columns_are_orthonormal(generator):
    columns = haar(20, 7, generator)
    # Householder QR: orthonormal to a small multiple of eps × side
    torch.testing.assert_close(columns.mT @ columns, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-14)


def test_haar_entries_have_mean_zero_and_mean_square_one_over_rows(generator):
    draws, rows = 4000, 6
    sample = torch.stack([haar(rows, 3, generator) for _ in range(draws)])
    # Five standard errors of a mean over the draws: var q = 1/rows, var q² = 2(rows − 1)/(rows²(rows + 2)).
    assert sample.mean(0).abs().max() < 5 / math.sqrt(rows * draws)
    spread = math.sqrt(2 * (rows - 1) / (rows**2 * (rows + 2)) / draws)
    assert (sample.square().mean(0) - 1 / rows).abs().max() < 5 * spread


def test_trace_of_a_haar_square_matrix_has_mean_square_one(generator):
    # Diaconis & Shahshahani (1994): tr O is nearly standard normal; var (tr²) ≈ 2, five standard errors.
    draws = 4000
    traces = torch.stack([haar(6, 6, generator).trace() for _ in range(draws)])
    assert abs(traces.square().mean() - 1) < 5 * math.sqrt(2 / draws)


# --- comparison with dense computations and simulation ------------------------------------------


@given(matrices())
def test_squared_singular_values_are_those_of_a_dense_svd(matrix):
    expected = torch.linalg.svdvals(matrix).square()
    torch.testing.assert_close(squared_singular_values(matrix), expected, rtol=0, atol=rounding(matrix, matrix))


@given(matrices())
def test_what_a_gpu_computes_by_eigenvalues_is_a_dense_svd(matrix):
    sigma, vt = _by_eigenvalues(matrix), _by_gram(matrix)
    expected = torch.linalg.svdvals(matrix)
    largest = float(torch.linalg.vector_norm(matrix))
    # Backward stable on a matrix of norm σ₁ and side out + in: no square root of eps, however small a σ is.
    torch.testing.assert_close(sigma, expected, rtol=0, atol=MARGIN * sum(matrix.shape) * EPS * largest)
    identity = torch.eye(len(sigma), dtype=torch.float64)
    torch.testing.assert_close(vt @ vt.mT, identity, rtol=0, atol=MARGIN * sum(matrix.shape) * EPS)
    torch.testing.assert_close(
        (matrix @ vt.mT).square().sum(0), expected.square(), rtol=0, atol=rounding(matrix, matrix)
    )


@pytest.mark.parametrize("of", [right_svd, singular_values, lambda m: product_svd(packed(m), packed(m[:, None]), 2),
                                lambda m: product_singular_values(m, m)])  # fmt: skip
def test_no_jacobi_svd_is_called_off_the_cpu(of):
    class Called(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(function.__name__)
            return function(*args, **(kwargs or {}))

    names: list[str] = []
    with Called():
        of(torch.empty(3, 4, 6, dtype=torch.float64, device="meta"))
    assert any("eigh" in name for name in names) and not any("svd" in name for name in names), names


@given(head_factors())
def test_product_svd_is_the_dense_svd_of_the_product(factors):
    left, right = factors
    sigma, vt = decomposed(left, right)
    dense = left.mT @ right  # (hidden, hidden)
    bound = rounding(left, right)
    torch.testing.assert_close(sigma, torch.linalg.svdvals(dense)[: len(sigma)], rtol=0, atol=bound)
    torch.testing.assert_close(dense @ vt.mT @ vt, dense, rtol=0, atol=bound)
    torch.testing.assert_close((dense @ vt.mT).norm(dim=0), sigma, rtol=0, atol=bound)
    # Products of two orthonormal factors, also where the product is rank-deficient: size × eps
    identity = torch.eye(len(sigma), dtype=torch.float64)
    torch.testing.assert_close(vt @ vt.mT, identity, rtol=0, atol=MARGIN * left.shape[1] * EPS)


def test_one_left_factor_serves_a_group_of_right_ones(generator):
    left = torch.randn(3, 4, 10, generator=generator, dtype=torch.float64)
    right = torch.randn(3, 2, 4, 10, generator=generator, dtype=torch.float64)
    sigma, vt = product_svd(Householder.of(left), Householder.of(right), 3)
    signed = symmetric_eigenvalues(Householder.of(left), right)
    assert (sigma.shape, vt.shape, signed.shape) == ((3, 2, 4), (3, 2, 3, 10), (3, 2, 8))
    for i, j in itertools.product(range(3), range(2)):
        bound = rounding(left, right)
        torch.testing.assert_close(sigma[i, j], decomposed(left[i], right[i, j])[0], rtol=0, atol=bound)
        torch.testing.assert_close(signed[i, j], signed_eigenvalues(left[i], right[i, j]), rtol=0, atol=bound)


@pytest.mark.parametrize("beyond", [0.0, 1e-15, 1e-12, 1e-8, 1e-4])
def test_signed_eigenvalues_keep_their_digits_where_queries_and_keys_read_almost_the_same(generator, beyond):
    """What the keys have beyond the queries is then rounding, or a few digits."""
    right, other = torch.randn(2, 6, 40, generator=generator, dtype=torch.float64)
    left = torch.randn(6, 6, generator=generator, dtype=torch.float64) @ right + beyond * other
    dense = left.mT @ right
    expected = torch.linalg.eigvalsh(dense + dense.mT)
    found = signed_eigenvalues(left, right).sort().values
    largest = expected[expected.abs().argsort(descending=True)[:12]].sort().values
    torch.testing.assert_close(found, largest, rtol=0, atol=rounding(left, right))


@given(head_factors())
def test_signed_eigenvalues_are_those_of_the_dense_matrix_also_for_deficient_and_narrow_heads(factors):
    left, right = factors
    dense = left.mT @ right
    eigenvalues = torch.linalg.eigvalsh(dense + dense.mT)
    by_magnitude = eigenvalues[eigenvalues.abs().argsort(descending=True)]
    modes = 2 * left.shape[0]
    expected = torch.nn.functional.pad(by_magnitude, (0, max(0, modes - len(by_magnitude))))[:modes]
    found = signed_eigenvalues(left, right)
    assert found.shape == (modes,)
    assert (found.abs().diff() <= 0).all(), f"not by falling magnitude: {found}"
    # Equal magnitudes of opposite sign may come in either order.
    torch.testing.assert_close(found.sort().values, expected.sort().values, rtol=0, atol=rounding(left, right))


def test_weights_are_multiplied_in_full_float32_whatever_is_set(tmp_path, monkeypatch):
    seen = []

    def watched(original):
        return lambda *given: seen.append(torch.get_float32_matmul_precision()) or original(*given)

    for module, name in ((all_pairs, "gram"), (matching, "score_heads")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path / "m", layers=2, tokenizer=False)))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 where a device has it
    try:
        all_pairs.all_products(head_grams.reader(checkpoint, device="cpu"), 2, seed=0)
        matching.matched_cosines(checkpoint, seed=0, device="cpu")
        apply, generator = lanczos.dense(torch.eye(64)), torch.Generator().manual_seed(0)
        lanczos.sampled_entropy(watched(apply), 64, 64.0, generator, torch.device("cpu"))
        assert len(seen) > 3 and set(seen) == {"highest"} and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_page_entropy_is_the_mean_of_simulated_gaussian_matrices(generator):
    for rows, columns in ((32, 32), (32, 128), (128, 64)):
        draws = torch.randn(100, rows, columns, generator=generator, dtype=torch.float64)
        entropies = energy_entropy(squared_singular_values(draws))
        sampling = 5 * float(entropies.std()) / math.sqrt(len(entropies))
        # Page's form is too high, by at most about 0.4/m (its finite-size term; see the docstring).
        excess = page_entropy(rows, columns) - float(entropies.mean())
        assert -sampling < excess < 0.4 / min(rows, columns) + sampling, f"{rows}×{columns}: {excess}"


# --- what is rejected ---------------------------------------------------------------------------


def test_more_orthonormal_columns_than_dimensions_are_rejected(generator):
    with pytest.raises(ValueError, match="5 orthonormal columns do not fit into 3 dimensions"):
        haar(3, 5, generator)


@given(factors=head_factors())
def test_product_singular_values_are_those_of_the_product(factors):
    key, query = factors
    dense = torch.linalg.svdvals(key.T @ query)
    ours = product_singular_values(key, query)
    assert ours.shape == (key.shape[0],)
    n = min(len(dense), len(ours))
    atol = 1e-13 * float(dense[0]) + 1e-300  # eps·σ₁·side
    torch.testing.assert_close(ours[:n], dense[:n], rtol=0, atol=atol)


@given(st.integers(1, 12), st.integers(1, 12), seeds, st.booleans(), st.sampled_from([2, spectra.SMALL]))
def test_leading_modes_are_those_of_the_full_decomposition(side, rank, seed, repeated, small):
    """`small` : up to which side they are taken from it; of a larger matrix no more vectors are made than asked for."""
    rows = torch.randn(side, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if repeated:
        rows = rows.sign()  # eigenvalues that coincide
    symmetric, k = gram(rows), min(side, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectra, "SMALL", small)
        values, vectors = leading_modes(symmetric, k)
    scale = float(symmetric.norm()) or 1.0
    atol = 64 * side * EPS * scale  # backward error of the reduction and of the tridiagonal solver
    torch.testing.assert_close(values, torch.linalg.eigvalsh(symmetric), rtol=0, atol=atol)
    torch.testing.assert_close(symmetric @ vectors, vectors * values[side - k :], rtol=0, atol=atol)
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(k, dtype=torch.float64), rtol=0, atol=64 * side * EPS)


@pytest.mark.parametrize("side", [1, 2, 3, 9, spectra.SMALL + 1])
def test_leading_modes_of_nothing_are_zero_with_orthonormal_vectors(side):
    values, vectors = leading_modes(torch.zeros(side, side, dtype=torch.float64), 1)
    assert (values == 0).all() and float(vectors.norm()) == pytest.approx(1)
