"""The strategies reach the awkward cases that the laws are about."""

import hypothesis
import pytest
import torch

from tests.strategies import head_factors, matrices, shapes

SETTINGS = hypothesis.settings(max_examples=500, database=None, derandomize=True, deadline=None)


def rank(matrix: torch.Tensor) -> int:
    return int(torch.linalg.matrix_rank(matrix))


@pytest.mark.parametrize(
    "case",
    [
        lambda m: m.shape[0] == 1 < m.shape[1],
        lambda m: m.shape[1] == 1 < m.shape[0],
        lambda m: rank(m) < min(m.shape),
        lambda m: rank(m) == min(m.shape) > 2,
        lambda m: m.abs().max() > 1e2,
        lambda m: m.abs().max() < 1e-2,
    ],
    ids=["a row", "a column", "rank-deficient", "full rank", "large", "small"],
)
def test_matrices_reach(case):
    hypothesis.find(matrices(), case, settings=SETTINGS)


@pytest.mark.parametrize(
    "case",
    [
        lambda sides: sides[0].shape[1] < 2 * sides[0].shape[0],
        lambda sides: sides[0].shape[1] > 2 * sides[0].shape[0],
        lambda sides: rank(sides[0]) < min(sides[0].shape),
        lambda sides: rank(sides[1]) < min(sides[1].shape),
    ],
    ids=["hidden below twice the head", "hidden above", "dead key dimension", "dead query dimension"],
)
def test_head_factors_reach(case):
    hypothesis.find(head_factors(), case, settings=SETTINGS)


@pytest.mark.parametrize(
    "case",
    [
        lambda s: s.heads == s.kv_heads > 1,
        lambda s: s.heads > s.kv_heads == 1,
        lambda s: s.heads > s.kv_heads > 1,
        lambda s: s.head_dim > s.hidden,
        lambda s: s.experts > 1 < s.feed_forward,
    ],
    ids=["alone", "all on one key", "groups", "wide heads", "experts"],
)
def test_shapes_reach(case):
    hypothesis.find(shapes(), case, settings=SETTINGS)
