"""Layouts in which several roles share one stored tensor, and how they are split and joined.

A closed set of pure views. `split` gives every role of a stored tensor as (out, in), or (out,) for a
bias, or (expert, out, in); `join` is its inverse, so whoever changes one role can restore the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from analyses.weights.shape import Shape

if TYPE_CHECKING:
    import torch

QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")
GATE_AND_UP = ("gate_proj", "up_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way of keeping roles in a tensor."""

    name: str
    roles: tuple[str, ...] = ()  # in the order of the rows; () where the tensor is one role
    transposed: bool = False  # a matrix is stored as (in, out); its bias knows no difference
    grouped: bool = False  # rows are [kv_head, query heads of the group + key + value, head_dim]
    stacked: bool = False  # the first axis counts the experts
    # Rows are [block, role, …] rather than [role, …]; a block is one "head", one "row" of each role, or one of so many.
    woven: str = ""

    def split(self, stored: torch.Tensor, shape: Shape) -> tuple[torch.Tensor, ...]:
        """Every role of a stored weight or bias, in the order of `roles`; views where torch allows it."""
        rows = stored.mT if self.transposed and stored.ndim > 1 + self.stacked else stored
        if not self.roles:
            return (rows,)
        if self.grouped:
            groups = rows.unflatten(0, (shape.kv_heads, shape.heads // shape.kv_heads + 2, shape.head_dim))
            return groups[:, :-2].flatten(0, 2), groups[:, -2].flatten(0, 1), groups[:, -1].flatten(0, 1)
        if self.woven:
            axis = int(self.stacked)
            blocks = rows.unflatten(axis, (self._blocks(shape), len(self.roles), -1))
            return tuple(role.flatten(axis, axis + 1) for role in blocks.unbind(axis + 1))
        return rows.split([shape.of(role)[0] for role in self.roles], dim=int(self.stacked))

    def _blocks(self, shape: Shape) -> int:
        """How many blocks the rows are woven of."""
        return {"head": shape.heads, "row": shape.of(self.roles[0])[0]}.get(self.woven) or int(self.woven)

    def join(self, values: Sequence[torch.Tensor], shape: Shape) -> torch.Tensor:
        """The stored tensor whose roles are `values`: the inverse of `split`."""
        import torch  # here, since the page reads the names of families without it

        if not self.roles:
            (rows,) = values
        elif self.grouped:
            query, key, value = (each.unflatten(0, (shape.kv_heads, -1, shape.head_dim)) for each in values)
            rows = torch.cat([query, key, value], dim=1).flatten(0, 2)
        elif self.woven:
            axis = int(self.stacked)
            blocks = [value.unflatten(axis, (self._blocks(shape), -1)) for value in values]
            rows = torch.stack(blocks, axis + 1).flatten(axis, axis + 2)
        else:
            rows = torch.cat(tuple(values), dim=int(self.stacked))
        return rows.mT if self.transposed and rows.ndim > 1 + self.stacked else rows

    def take(self, stored: torch.Tensor, role: str, shape: Shape) -> torch.Tensor:
        """One role of a stored weight or bias."""
        return self.split(stored, shape)[self.roles.index(role) if self.roles else 0]

    def part(self, role: str, axes: int, shape: Shape) -> tuple[slice, ...]:
        """Where in a stored tensor of so many axes the rows of a role lie; () where they are not in one piece."""
        if not self.roles or self.grouped or self.woven:
            return ()
        before = self.roles[: self.roles.index(role)]
        start = sum(shape.of(r)[0] for r in before)
        rows = slice(start, start + shape.of(role)[0])
        axis = int(self.stacked) if not self.transposed else axes - 1
        return (*[slice(None)] * axis, rows)

    def stored_shape(self, role: str, shape: Shape, *, bias: bool = False) -> tuple[int, ...]:
        """The shape that the stored weight with this role, or its bias, must have."""
        rows = sum(shape.of(r)[0] for r in self.roles) if self.roles else shape.of(role)[0]
        matrix = (rows,) if bias else (rows, *shape.of(role)[1:])
        return (shape.experts,) * self.stacked + (matrix[::-1] if self.transposed else matrix)


PLAIN = Layout(name="plain")
TRANSPOSED = Layout(name="transposed", transposed=True)
ROWS = Layout(name="rows q, k, v", roles=QUERY_KEY_VALUE)
TRANSPOSED_ROWS = Layout(name="transposed, rows q, k, v", roles=QUERY_KEY_VALUE, transposed=True)
HALVES = Layout(name="halves gate, up", roles=GATE_AND_UP)
GROUPED = Layout(name="grouped [kv, q per kv + 2, d]", roles=QUERY_KEY_VALUE, grouped=True)
INTERLEAVED = replace(GROUPED, name="interleaved [heads, 3, d]")  # the same with one query head to a key
STACKED = Layout(name="stacked experts", stacked=True)
STACKED_HALVES = Layout(name="stacked experts, halves gate, up", roles=GATE_AND_UP, stacked=True)
TRANSPOSED_STACKED = replace(STACKED, name="stacked experts, transposed", transposed=True)
TRANSPOSED_STACKED_HALVES = replace(STACKED_HALVES, name="stacked experts, transposed, halves", transposed=True)
TRANSPOSED_STACKED_ROWS = replace(
    TRANSPOSED_STACKED_HALVES, name="stacked experts, transposed, gate and up in turn", woven="row"
)
GATED_QUERIES = Layout(name="by head query, gate", roles=("q_proj", "attention_gate"), woven="head")
CODEGEN = Layout(name="in four blocks q, v, k", roles=("q_proj", "v_proj", "k_proj"), woven="4")

LAYOUTS = (
    PLAIN, TRANSPOSED, ROWS, TRANSPOSED_ROWS, HALVES, GROUPED, INTERLEAVED, STACKED, STACKED_HALVES,
    TRANSPOSED_STACKED, TRANSPOSED_STACKED_HALVES, TRANSPOSED_STACKED_ROWS, GATED_QUERIES, CODEGEN,
)  # fmt: skip
