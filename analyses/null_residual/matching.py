"""Cosines of adjacent layers' neurons and heads after matching them.

The order of neurons, the order of heads and the scale of many weights are free: they can be
changed without changing the model's function, so a cosine between stored tensors can be 0 for two
layers that compute the same. Here every unit (neuron, head) is put into a form which those exact
maps cannot touch, units are matched by linear assignment, and matched units are compared.

A best matching looks good by construction: 256 unrelated neurons of 128 dimensions reach a mean
cosine of 0.23 on the matrix they were matched on (0.14 if matched on three at once), well above
any threshold for "unrelated". So a family is matched on the *other* matrices of its block and
scored on the one held out. Chance then gives 0 for independent matrices. It gives a little more if
a neuron's own gate, up and down are alike, because a match found by luck on one carries over to
the others; so the same is done once more with the coordinates of one layer permuted and their
signs drawn at random, all its matrices alike: its inner structure stays, its relation to the
other layer goes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from analyses.numerics.spectra import binary_size, factored_inner_products, full_float32, signed_permutation
from analyses.weights.canonical import (
    ATTENTION,
    FEED_FORWARD,
    Factors,
    HeadFactors,
    head_factors,
    neuron_rows,
    unit_rows,
)
from analyses.weights.checkpoint import Checkpoint

# Of a wider layer so many neurons, those with the largest product of the lengths of their rows, are matched into all of
# the next layer's: a choice that no exact map changes, since a factor moved from one row to another leaves the product
# alone. Their mean cosine is right to 0.001 at hidden 1,024; a square assignment of 3,000 takes 1 s a matrix, this one
# 0.01 s.
NEURONS = 1024
# From this many hidden dimensions on, cosines are products of float32 rows: right to 1e-6, while neurons as good
# as one another to within that may be exchanged, which moves a mean cosine by less than 1e-4. Half the time and memory.
FLOAT32_HIDDEN = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedPair:
    """Two adjacent layers; role → mean cosine of matched units, in [−1, 1], None if no unit is free of zeros.

    Roles: gate, up, down (neurons), qk, vo (heads), as far as the architecture has them.
    """

    cos: dict[str, float | None]
    chance: dict[str, float | None]  # the same with one layer's coordinates scrambled


@dataclass(frozen=True, slots=True)
class Scramble:
    """A signed permutation of the residual stream's coordinates."""

    order: torch.Tensor  # (hidden,)
    signs: torch.Tensor  # (hidden,) ±1

    @classmethod
    def draw(cls, hidden: int, seed: int, *, device: str) -> "Scramble":
        order, signs = signed_permutation(hidden, (seed, hidden))
        return cls(order.to(device), signs.to(device))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[..., self.order] * self.signs.to(rows.dtype)


@full_float32()
def matched_cosines(
    checkpoint: Checkpoint, *, seed: int, device: str, each: Callable[[Iterable], Iterable] = iter
) -> list[MatchedPair]:
    """Mean cosine of matched units for each adjacent pair of layers, and its chance level.

    Parameters
    ----------
    checkpoint : weights by family and layer.
    seed : of the scrambled coordinates.
    each : passes the pairs through, to count them.
    """
    scramble = Scramble.draw(checkpoint.shape.hidden, seed, device=device)
    roles = [role for role, family in FEED_FORWARD.items() if family in checkpoint.families]
    streams = []
    if {"up", "down"} <= set(roles) and not checkpoint.shape.experts:
        families = [FEED_FORWARD[role] for role in roles]
        streams.append(_over_all(checkpoint, families, lambda view: _neuron_pairs(view, roles, scramble, device)))
    if ATTENTION.issubset(checkpoint.families):
        heads = sorted(ATTENTION)
        streams.append(_over_all(checkpoint, heads, lambda view: _head_pairs(view, scramble, device)))
    if not streams:
        return list(each([MatchedPair(cos={}, chance={})] * (checkpoint.shape.layers - 1)))
    return [
        MatchedPair(
            cos={role: value for block in blocks for role, value in block.cos.items()},
            chance={role: value for block in blocks for role, value in block.chance.items()},
        )
        for blocks in each(zip(*streams, strict=True))
    ]


def _over_all(
    checkpoint: Checkpoint, families: Sequence[str], pairs: Callable[[Checkpoint], Iterator[MatchedPair]]
) -> Iterator[MatchedPair]:
    """The pairs of the layers that have these families, each with the next that has them; between others, nothing."""
    layers, depth = checkpoint.layers_with(*families), checkpoint.shape.layers
    if len(layers) == depth:
        return pairs(checkpoint)
    found = list(pairs(checkpoint.view(layers))) if len(layers) > 1 else []
    nothing = {role: None for pair in found for role in pair.cos}
    at = dict(zip(layers, found, strict=False))
    return iter([at.get(layer, MatchedPair(cos=nothing, chance=nothing)) for layer in range(depth - 1)])


# --- one pair of blocks -------------------------------------------------------------------------


def score_neurons(cosines: Mapping[str, torch.Tensor]) -> dict[str, float | None]:
    """Mean cosine of matched neurons, per matrix held out.

    Parameters
    ----------
    cosines : "gate" (where there is one), "up", "down" → (neuron, neuron') cosines, float64. Up and
        down share a free sign per neuron, so only products of the two, or magnitudes, may be used.

    Returns
    -------
    gate is matched on up·down; up on gate + |down|, with its sign from down; down likewise.
    """
    gate, up, down = cosines.get("gate"), cosines["up"], cosines["down"]
    matched_on = gate if gate is not None else torch.zeros_like(up)
    result = {
        "up": _held_out(matched_on + down.abs(), up * down.sign()),
        "down": _held_out(matched_on + up.abs(), down * up.sign()),
    }
    return result if gate is None else {"gate": _held_out(up * down, gate)} | result


def score_heads(a: HeadFactors, b: HeadFactors) -> dict[str, float | None]:
    """Mean cosine of matched heads' maps g = W_kᵀW_q and W_oW_v; each is matched on the other.

    Parameters
    ----------
    a, b : of two layers, ((W_k, W_q), (W_v, W_oᵀ)), see `head_factors`.
    """
    qk, qk_a, qk_b = product_cosines(a[0], b[0])
    vo, vo_a, vo_b = product_cosines(a[1], b[1])
    alive_a, alive_b = qk_a & vo_a, qk_b & vo_b
    qk, vo = qk[alive_a][:, alive_b], vo[alive_a][:, alive_b]
    return {"qk": _held_out(vo, qk), "vo": _held_out(qk, vo)}


def _held_out(matched_on: torch.Tensor, scored: torch.Tensor) -> float | None:
    if not matched_on.numel():
        return None
    cost = matched_on.cpu().double().numpy()  # the solver's own type: it copies any other, and also to maximise
    cost = np.negative(cost, out=cost if matched_on.dtype != torch.float64 else None)
    del matched_on
    rows, columns = linear_sum_assignment(cost)
    return float(np.mean(scored.cpu().numpy()[rows, columns], dtype=np.float64))


def product_cosines(a: Factors, b: Factors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosines between the maps leftᵀ·right of two layers' heads, without forming a map.

    Parameters
    ----------
    a, b : (left, right) of a layer: left (kv_head, head_dim, hidden), shared by the query heads of
        a group, and right (head, head_dim, hidden), float64.

    Returns
    -------
    (head, head') cosines, 0 for an all-zero head; (head,) and (head',) which heads are not zero.
    """
    norm_a, norm_b = _product_norms(*a), _product_norms(*b)
    inner = factored_inner_products(*a, *b)  # (head, head')
    scale = norm_a[:, None] * norm_b
    return torch.where(scale > 0, inner / scale.where(scale > 0, 1.0), 0.0), norm_a > 0, norm_b > 0


def _product_norms(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """‖leftᵀ·right‖_F per query head, (head,)."""
    gram_left = (left @ left.mT).repeat_interleave(right.shape[0] // left.shape[0], dim=0)  # (head, dim, dim)
    return (gram_left * (right @ right.mT)).sum((-2, -1), dtype=torch.float64).clamp_min(0).sqrt()


def _precision(checkpoint: Checkpoint) -> torch.dtype:
    return torch.float32 if checkpoint.shape.hidden >= FLOAT32_HIDDEN else torch.float64


def _sized(checkpoint: Checkpoint, heads: torch.Tensor) -> torch.Tensor:
    """Heads brought to a size that products of four of them bear in float32; cosines do not know it."""
    return (heads / binary_size(heads)[:, None, None]).to(_precision(checkpoint))


# --- streaming over layers ----------------------------------------------------------------------


def _neuron_pairs(
    checkpoint: Checkpoint, roles: Sequence[str], scramble: Scramble, device: str
) -> Iterator[MatchedPair]:
    """Holds the units of the new layer and at most NEURONS of the old."""
    before: dict[str, torch.Tensor] = {}  # role → (neuron, hidden) unit rows of the layer before
    for layer in range(checkpoint.shape.layers):
        after: dict[str, torch.Tensor] = {}
        size: torch.Tensor | float = 1.0  # (neuron,)
        for role in roles:
            rows = neuron_rows(checkpoint, role, layer, device)
            size = size * torch.linalg.vector_norm(rows, dim=-1)
            after[role] = unit_rows(rows).to(_precision(checkpoint))
            del rows
        alive = torch.stack([rows.any(-1) for rows in after.values()]).all(0)
        if layer:
            old = torch.stack([rows.any(-1) for rows in before.values()]).all(0)
            before = {role: rows[old] for role, rows in before.items()}
            living = after if alive.all() else {role: rows[alive] for role, rows in after.items()}
            # One after the other: the cosines of a wide layer are 25 MB a role.
            cos, chance = (
                score_neurons({role: before[role] @ change(rows).mT for role, rows in living.items()})
                for change in (lambda rows: rows, scramble)
            )
            yield MatchedPair(cos=cos, chance=chance)
        largest = size.argsort(descending=True, stable=True)[:NEURONS]
        before = {role: rows[largest] for role, rows in after.items()}


def _head_pairs(checkpoint: Checkpoint, scramble: Scramble, device: str) -> Iterator[MatchedPair]:
    """Holds the attention matrices of two layers."""

    def factors(layer: int) -> HeadFactors:
        blocks = head_factors(checkpoint, layer, device)
        return tuple((_sized(checkpoint, left), _sized(checkpoint, right)) for left, right in blocks)

    before = factors(0)
    for layer in range(1, checkpoint.shape.layers):
        after = factors(layer)
        yield MatchedPair(
            cos=score_heads(before, after),
            chance=score_heads(before, tuple((scramble(left), scramble(right)) for left, right in after)),
        )
        before = after
