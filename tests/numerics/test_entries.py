"""Sums over entries a block at a time, against exact sums and dense float64."""

import math

import pytest
import torch

from analyses.null_residual.pairs import Side, likeness
from analyses.numerics import blockwise

SIZE = 3 * blockwise.BLOCK + 4711  # several blocks, the last of them short and no multiple of a run
EPS = torch.finfo(torch.float64).eps


def gaussian(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_sums_over_blocks_are_those_over_all_entries_upcast(dtype):
    a, b = gaussian(1, dtype), gaussian(2, dtype)
    total, product = blockwise.sums(lambda x, y: (float(x.sum()), blockwise.dot(x, y)), a, b)
    # Any order of summation: n·eps of the sum of magnitudes, and √n of it on average
    magnitudes = float(a.double().abs().sum()), float((a.double() * b.double()).abs().sum())
    assert total == pytest.approx(math.fsum(a.tolist()), abs=math.sqrt(SIZE) * EPS * magnitudes[0])
    exact = math.fsum((a.double() * b.double()).tolist())  # products of 16-bit entries are exact, others to eps
    assert product == pytest.approx(exact, abs=math.sqrt(SIZE) * EPS * magnitudes[1])


def test_entries_are_written_where_they_belong():
    a, b = gaussian(3, torch.bfloat16), gaussian(4, torch.float32)
    out = torch.empty(SIZE, dtype=torch.float64)
    assert blockwise.write(out, lambda x, y: 2 * x - y, a, b) is out
    assert torch.equal(out, 2 * a.double() - b.double())


def test_a_float64_tensor_is_read_where_it_lies_and_others_through_a_buffer():
    wide, narrow = gaussian(5), gaussian(6, torch.float32)
    seen = []
    blockwise.sums(lambda x, y: seen.append((x.data_ptr(), y.data_ptr())) or (0.0,), wide, narrow)
    assert [x for x, _ in seen] == [wide[i:].data_ptr() for i in range(0, SIZE, blockwise.BLOCK)]
    assert len({y for _, y in seen}) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_likeness_of_stored_tensors_of_many_blocks_is_that_of_their_float64_values(dtype, mean):
    a, b = ((mean + 0.1 * gaussian(seed)).to(dtype) for seed in (7, 8))
    found, x, y = likeness(Side(a), Side(b)), a.double(), b.double()
    unit_x, unit_y = x / x.norm(), y / y.norm()
    pearson = torch.corrcoef(torch.stack([x, y]))[0, 1]
    # Sums of 10⁵ terms of size 1/n, in another order
    assert found.cos == pytest.approx(float(unit_x @ unit_y), abs=1e-13)
    assert found.resid_norm == pytest.approx(float((unit_y - unit_x).norm()), rel=1e-12)
    assert found.pearson == pytest.approx(float(pearson), abs=1e-13)
    assert found.null_cos == pytest.approx(float(SIZE * x.mean() * y.mean() / (x.norm() * y.norm())), abs=1e-13)
