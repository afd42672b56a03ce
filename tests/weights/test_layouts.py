"""A layout is a view and its inverse: no entry is lost, moved or mixed."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given

from analyses.weights.layouts import (
    GATED_QUERIES,
    GROUPED,
    HALVES,
    LAYOUTS,
    PLAIN,
    ROWS,
    STACKED,
    STACKED_HALVES,
    TRANSPOSED,
    TRANSPOSED_ROWS,
)
from analyses.weights.shape import Shape
from tests.strategies import shapes


def stored(layout, shape: Shape, role: str, *, bias: bool) -> torch.Tensor:
    """A tensor whose entries all differ."""
    sizes = layout.stored_shape(role, shape)
    if bias:
        rows = sizes[-1] if layout.transposed else sizes[-2]
        sizes = (*sizes[: int(layout.stacked)], rows)
    return torch.arange(torch.Size(sizes).numel(), dtype=torch.float64).view(sizes)


def assume_blocks(layout, shape: Shape) -> None:
    """Rows of a role can only be woven of so many blocks if they divide into them."""
    assume(not layout.woven.isdigit() or all(shape.of(role)[0] % int(layout.woven) == 0 for role in layout.roles))
    assume(not layout.woven.isdigit() or len({shape.of(role)[0] for role in layout.roles}) == 1)


@given(shape=shapes(), layout=st.sampled_from(LAYOUTS), bias=st.booleans())
def test_joining_what_was_split_gives_the_stored_tensor_again(shape, layout, bias):
    assume_blocks(layout, shape)
    role = layout.roles[0] if layout.roles else "down_proj"
    tensor = stored(layout, shape, role, bias=bias)
    parts = layout.split(tensor, shape)
    assert torch.equal(layout.join(parts, shape), tensor)
    assert sum(part.numel() for part in parts) == tensor.numel()


@given(shape=shapes(), layout=st.sampled_from(LAYOUTS), bias=st.booleans())
def test_splitting_what_was_joined_gives_the_roles_again(shape, layout, bias):
    assume_blocks(layout, shape)
    roles = layout.roles or ("up_proj",)
    sizes = [shape.of(role)[: 1 if bias else 2] for role in roles]
    stack = (shape.experts,) * layout.stacked
    parts = [torch.rand(*stack, *size, dtype=torch.float64) for size in sizes]
    joined = layout.join(parts, shape)
    assert bias or tuple(joined.shape) == layout.stored_shape(roles[0], shape)
    for role, part in zip(roles, parts, strict=True):
        assert torch.equal(layout.take(joined, role, shape), part)


@given(shape=shapes(), layout=st.sampled_from(LAYOUTS), bias=st.booleans())
def test_the_part_of_the_stored_tensor_that_holds_a_role_is_that_role(shape, layout, bias):
    assume_blocks(layout, shape)
    for role in layout.roles:
        tensor = stored(layout, shape, role, bias=bias)
        if part := layout.part(role, tensor.ndim, shape):
            rows = tensor[part]
            rows = rows.mT if layout.transposed and not bias else rows
            assert torch.equal(rows, layout.take(tensor, role, shape)), role
        else:
            assert layout.grouped or layout.woven


SMALL = Shape(layers=2, hidden=3, heads=4, kv_heads=2, head_dim=1, feed_forward=2, experts=2)


@pytest.mark.parametrize(
    ("layout", "role", "rows"),
    [
        (ROWS, "q_proj", [0, 1, 2, 3]),
        (ROWS, "k_proj", [4, 5]),
        (ROWS, "v_proj", [6, 7]),
        (HALVES, "gate_proj", [0, 1]),
        (HALVES, "up_proj", [2, 3]),
        # Groups of two queries, their key and their value.
        (GROUPED, "q_proj", [0, 1, 4, 5]),
        (GROUPED, "k_proj", [2, 6]),
        (GROUPED, "v_proj", [3, 7]),
        (GATED_QUERIES, "q_proj", [0, 2, 4, 6]),
        (GATED_QUERIES, "attention_gate", [1, 3, 5, 7]),
    ],
)
def test_each_role_has_its_rows(layout, role, rows):
    matrix = torch.arange(8 if layout is not HALVES else 4)[:, None] * torch.ones(3)
    assert layout.take(matrix, role, SMALL)[:, 0].tolist() == rows
    assert layout.take(matrix[:, 0], role, SMALL).tolist() == rows  # of a bias


def test_one_query_to_a_key_makes_groups_interleaved_heads():
    shape = Shape(layers=2, hidden=3, heads=2, kv_heads=2, head_dim=2, feed_forward=2)
    rows = torch.arange(12).view(2, 3, 2)  # (head, role, head_dim)
    for i, role in enumerate(GROUPED.roles):
        assert torch.equal(GROUPED.take(rows.flatten(), role, shape), rows[:, i].flatten())


def test_a_transposed_matrix_is_turned_and_its_bias_is_not():
    matrix, bias = torch.rand(3, 8), torch.rand(8)
    assert torch.equal(TRANSPOSED_ROWS.take(matrix, "k_proj", SMALL), matrix[:, 4:6].mT)
    assert torch.equal(TRANSPOSED_ROWS.take(bias, "k_proj", SMALL), bias[4:6])
    assert torch.equal(TRANSPOSED.take(matrix, "o_proj", SMALL), matrix.mT)


def test_experts_keep_their_axis():
    stack = torch.rand(2, 4, 3)
    assert torch.equal(STACKED_HALVES.take(stack, "up_proj", SMALL), stack[:, 2:])
    assert torch.equal(STACKED.take(stack, "down_proj", SMALL), stack)
    assert STACKED.stored_shape("down_proj", SMALL) == (2, 3, 2)
    assert STACKED_HALVES.stored_shape("up_proj", SMALL) == (2, 4, 3)
    assert PLAIN.stored_shape("o_proj", SMALL) == (3, 4)
