"""Ranks beside balanced factors turned at random, sizes of rotary planes, and published slices of keys."""

import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import stats

from analyses import head_grams
from analyses.head_grams import folded_record
from analyses.head_grams.head_ranks import balanced, measure_ranks, misread, rank_ratio
from analyses.head_grams.plane_order import plane_metrics, plane_sizes, planes_of
from analyses.records import Metric, plain, unexplained_nulls
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.folded import Folded
from analyses.weights.planes import STILL, Turns
from checks.maps.catalogue import SCRAMBLE
from checks.maps.heads import MIX_VALUES
from checks.maps.planes import ROTATE_PLANES
from tests.strategies import seeds
from tests.tiny import tiny_checkpoint

TURNING = Turns(frequencies=(1.0, 0.3, 0.1, 0.03))


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_rank(matrix: torch.Tensor) -> float:
    energy = torch.linalg.svdvals(matrix).square()
    p = energy[energy > 1e-14 * energy[0]] / energy.sum()
    return float(torch.exp(-(p * p.log()).sum()))


@given(seed=seeds)
def test_a_map_between_factors_leaves_the_balanced_ones_spectra(seed):
    keys, queries = gaussian(seed, 2, 6, 20), gaussian(seed + 1, 4, 6, 20)
    mixing = gaussian(seed + 2, 2, 6, 6) + 3 * torch.eye(6).double()
    moved = torch.linalg.inv(mixing).mT @ keys, mixing.repeat_interleave(2, 0) @ queries
    for before, after in zip(balanced(keys, queries, STILL), balanced(*moved, STILL), strict=True):
        a, b = (torch.linalg.eigvalsh(x) for x in (before, after))
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9 * float(a.max()))  # of maps of condition 1e3


@given(seed=seeds)
def test_scales_and_turns_of_planes_leave_the_balanced_ones_spectra(seed):
    keys, queries = gaussian(seed, 2, 8, 20), gaussian(seed + 1, 4, 8, 20)
    rng = np.random.default_rng(seed)
    angle, size = torch.tensor(rng.uniform(0, 6, (2, 4))), torch.tensor(np.exp(rng.normal(size=(2, 4))))

    def turned(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        group = len(rows) // 2
        c, s, f = ((x.repeat_interleave(group, 0)[..., None]) for x in (angle.cos(), angle.sin(), scale))
        a, b = rows[:, :4], rows[:, 4:]
        return torch.cat([f * (c * a - s * b), f * (s * a + c * b)], 1)

    moved = turned(keys, 1 / size), turned(queries, size)
    for before, after in zip(balanced(keys, queries, TURNING), balanced(*moved, TURNING), strict=True):
        a, b = (torch.linalg.eigvalsh(x) for x in (before, after))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * float(a.max()))


def test_the_product_of_balanced_factors_is_the_product_itself():
    keys, queries = gaussian(0, 2, 6, 20), gaussian(1, 4, 6, 20)
    a, b = balanced(keys, queries, STILL)
    for head in range(4):
        own = torch.linalg.svdvals(keys[head // 2].T @ queries[head])[:6]
        root = torch.linalg.cholesky(a[head // 2])
        found = torch.linalg.eigvalsh(root.T @ b[head] @ root).flip(0)
        torch.testing.assert_close(found, own.square(), rtol=1e-8, atol=0)


def test_unrelated_factors_have_a_ratio_of_one_and_aligned_uneven_ones_less():
    keys, queries = gaussian(2, 8, 32, 256), gaussian(3, 8, 32, 256)
    plain_ratio = rank_ratio(*balanced(keys, queries, STILL), seed=0)
    # Where any map is exact, factors are balanced to have the product's own axes: a little below one.
    assert 0.9 < float(plain_ratio.median()) < 1
    turning = Turns(frequencies=tuple(2.0**-i for i in range(16)))
    of_planes = rank_ratio(*balanced(keys, queries, turning), seed=0)
    assert float(of_planes.median()) == pytest.approx(1, abs=0.02)
    taper = torch.exp(-4 * torch.arange(32) / 32).double()[:, None]
    tapered = rank_ratio(*balanced(taper * keys, taper * queries, STILL), seed=0)
    assert float(tapered.median()) < 0.9  # as the claim asks


def test_ratios_are_those_of_dense_products_beside_dense_turns():
    keys, queries = gaussian(4, 1, 64, 80), gaussian(5, 2, 64, 80)
    a, b = balanced(keys, queries, STILL)
    found = rank_ratio(a, b, seed=1)
    for head in range(2):
        turn = torch.linalg.qr(gaussian(50 + head, 64, 64)).Q
        factors = (torch.linalg.cholesky(x) for x in (a[0], b[head]))
        k, q = (torch.linalg.svdvals(f) for f in factors)
        other = dense_rank(q[:, None] * turn * k)
        assert float(found[head]) == pytest.approx(dense_rank(keys[0].T @ queries[head]) / other, rel=0.05)  # of draws


def test_a_head_of_zeros_has_no_ratio():
    keys, queries = gaussian(6, 2, 4, 12), gaussian(7, 2, 4, 12)
    keys[0] = 0
    assert rank_ratio(*balanced(keys, queries, STILL), seed=0).isnan().tolist() == [True, False]


def test_sizes_of_planes_are_products_of_norms_of_their_complex_rows():
    keys, queries = gaussian(8, 2, 8, 12), gaussian(9, 4, 8, 12)
    found = plane_sizes(Folded(keys, queries, TURNING))
    for head in range(4):
        for plane in range(4):
            rows = [plane, plane + 4]
            expected = queries[head, rows].norm() * keys[head // 2, rows].norm()
            assert float(found[head, plane]) == pytest.approx(float(expected), rel=1e-14)
    assert plane_sizes(Folded(keys, queries, STILL)) is None


def test_shares_of_planes_sum_to_one_in_a_head_and_layers_of_fewer_planes_are_null_beyond_theirs():
    sizes = [np.array([[1.0, 3.0, 4.0, 0.0], [0.0] * 4]), None, np.ones((2, 2))]
    shares, theta = planes_of(sizes, [(4.0, 3.0, 2.0, 1.0), (), (1.0, 0.5)])
    nan = np.nan
    assert shares[0].tolist() == [[0.125, 0.375, 0.5, 0.0], [pytest.approx(nan, nan_ok=True)] * 4]
    np.testing.assert_array_equal(shares[1:], [[[nan] * 4] * 2, [[0.5, 0.5, nan, nan]] * 2])
    np.testing.assert_array_equal(theta, [[4, 3, 2, 1], [nan] * 4, [1, 0.5, nan, nan]])
    assert planes_of([None], [()]) == (None, None)


def test_planes_ordered_by_frequency_are_found_and_unordered_ones_are_not():
    rng = np.random.default_rng(0)
    theta = [tuple(10.0 ** -(np.arange(16) / 4))] * 6
    ordered = [np.exp(np.arange(16) / 8 + 0.2 * rng.normal(size=(8, 16))) for _ in theta]
    rho, found = plane_metrics(ordered, theta, seed=0)
    assert rho[2, 3] == pytest.approx(stats.spearmanr(ordered[2][3], theta[2]).statistic)
    assert found["plane_rho"].value < -0.8 and found["plane_p"].value <= 0.01 and found["plane_power"].value >= 0.8
    _, none = plane_metrics([np.exp(rng.normal(size=(8, 16))) for _ in theta], theta, seed=0)
    assert abs(none["plane_rho"].value) < 0.2 and none["plane_p"].value > 0.05


def test_the_share_of_orders_is_that_of_each_order_taken_by_itself():
    rng = np.random.default_rng(3)
    theta = [tuple(10.0 ** -(np.arange(6) / 2))] * 3
    sizes = [np.exp(np.arange(6) / 20 + rng.normal(size=(4, 6))) for _ in theta]
    _, found = plane_metrics(sizes, theta, seed=5)

    def middle(order) -> float:
        return np.median([stats.spearmanr(h, np.array(theta[0])[order]).statistic for layer in sizes for h in layer])

    draws = np.random.default_rng(5)
    null = [middle(draws.permutation(6)) for _ in range(199)]
    assert found["plane_p"].value == (1 + sum(x <= middle(np.arange(6)) + 1e-12 for x in null)) / 200


def test_the_published_slicing_of_grouped_keys_pairs_heads_that_do_not_belong_together():
    """The repository's own steps (utils/funs.py, "grouped-attention") on W_kᵀ, and what they do to symmetric heads."""
    keys = gaussian(10, 4, 16, 128)
    literal = keys.flatten(0, 1).T.contiguous()
    literal = literal.view(128, 16, 4).repeat_interleave(2, dim=0).view(128, 128)
    queries = gaussian(11, 8, 16, 128)
    torch.testing.assert_close(  # 128 terms in another order
        misread(queries, 4).flatten(0, 1).T @ keys.flatten(0, 1), queries.flatten(0, 1).T @ literal.T, rtol=0, atol=1e-12
    )
    queries = keys.repeat_interleave(2, 0)

    def dense(k: torch.Tensor) -> float:
        m = queries.flatten(0, 1).T @ k.flatten(0, 1)
        return float(((m + m.T) / 2).square().sum() / m.square().sum())

    assert dense(queries) == pytest.approx(1)
    # Of 8 pairs (h // 2, h mod 4) two are a head with itself, two are each other's: (2 + 2 + 4·½)/8 but for chance.
    assert dense(literal.T.unflatten(0, (8, 16))) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt_neox"])
def test_no_exact_map_moves_ranks_and_planes(tmp_path, name):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, name, tokenizer=False, layers=2)))
    record, before = measure_ranks(checkpoint, seed=0, device="cpu")
    for change in (SCRAMBLE, MIX_VALUES, ROTATE_PLANES):
        if change.undefined(checkpoint):
            continue
        moved, after = measure_ranks(change.apply(checkpoint, 3), seed=0, device="cpu")
        if record.plane_share is not None:  # in any order of heads
            both = (np.sort(found.plane_share, axis=1) for found in (record, moved))
            np.testing.assert_allclose(*both, rtol=1e-6, err_msg=change.name)
        for key in ("qk_rank_ratio", "ov_rank_ratio", "plane_rho"):
            if before[key].value is None:
                assert after[key].value is None
            else:
                assert after[key].value == pytest.approx(before[key].value, rel=1e-6), (change.name, key)


def test_the_record_holds_them_with_reasons_for_what_is_missing(tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, "gpt2", tokenizer=False, layers=2)))
    record, _ = head_grams.measure(checkpoint, seed=0, device="cpu")
    assert record.ranks.plane_rho is None and record.ranks.qk_rank_ratio.shape == (2, 4)
    assert not record.metrics["plane_rho"].applies and not record.metrics["encoder_symmetry"].applies
    assert unexplained_nulls(plain(record)) == []
    stored = head_grams.reader(checkpoint, device="cpu")
    bare, _ = head_grams.measure_heads(stored, checkpoint.shape, model="of heads alone", notes=[], seed=0)
    assert bare.ranks is None and unexplained_nulls(plain(bare)) == []


def test_a_decoders_symmetry_is_judged_by_its_distance_from_the_band():
    found = folded_record.by_kind(Metric(value=0.6, interval=(0.55, 0.63)), encoder=False)["decoder_symmetry_off"]
    assert found.value == pytest.approx(0.04) and found.interval == pytest.approx((0, 0.07))
    assert folded_record.by_kind(Metric(value=0.7), encoder=True)["encoder_symmetry"].value == 0.7
