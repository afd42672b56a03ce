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

Unless exact spectra are asked for, a fixed sample stands for the neurons and heads of a wide stream: SAMPLE neurons,
evenly spread over those that would all be matched, in the order of their size, which no exact map changes; and of a
head's map, what it makes of some directions (`probed_heads`). The standard error of each mean cosine stands beside it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from analyses.null_residual.probed_heads import draw_probes, held_out, probed, product_norms, score_probed
from analyses.numerics.blockwise import row_squares
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
SAMPLE = 256  # neurons of a layer that stand for its NEURONS: 1/√256 of one cosine's spread, 0.002 by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedPair:
    """Two adjacent layers; role → mean cosine of matched units, in [−1, 1], None if no unit is free of zeros.

    Roles: gate, up, down (neurons), qk, vo (heads), as far as the architecture has them.
    """

    cos: dict[str, float | None]
    chance: dict[str, float | None]  # the same with one layer's coordinates scrambled
    error: dict[str, float | None] = field(default_factory=dict)  # role → standard error of cos; empty where exact


MATCHED = ("cos", "chance", "error")  # fields of a MatchedPair


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

    def undo(self, rows: torch.Tensor) -> torch.Tensor:
        """⟨undo(x), y⟩ = ⟨x, scramble(y)⟩."""
        undone = torch.empty_like(rows)
        undone[..., self.order] = rows * self.signs.to(rows.dtype)
        return undone


@full_float32()
def matched_cosines(
    checkpoint: Checkpoint,
    *,
    seed: int,
    device: str,
    exact: bool = True,
    beside: bool = True,
    each: Callable[[Iterable], Iterable] = iter,
) -> list[MatchedPair]:
    """Mean cosine of matched units for each adjacent pair of layers, and its chance level.

    Parameters
    ----------
    checkpoint : weights by family and layer.
    seed : of the scrambled coordinates, and of the directions that heads are probed in.
    exact : whether a sample may not stand for the neurons and heads of a wide stream.
    beside : whether the chance level is wanted, which no metric reads.
    each : passes the pairs through, to count them.
    """
    scramble = Scramble.draw(checkpoint.shape.hidden, seed, device=device) if beside else None
    sampled = not exact and checkpoint.shape.hidden >= FLOAT32_HIDDEN
    probes = draw_probes(checkpoint.shape.hidden, seed, device=device) if sampled else None
    roles = [role for role, family in FEED_FORWARD.items() if family in checkpoint.families]
    streams = []
    if {"up", "down"} <= set(roles) and not checkpoint.shape.experts:
        families = [FEED_FORWARD[role] for role in roles]
        walk = _sampled_neuron_pairs if sampled else _neuron_pairs
        streams.append(_over_all(checkpoint, families, lambda view: walk(view, roles, scramble, device)))
    if ATTENTION.issubset(checkpoint.families):
        heads = sorted(ATTENTION)
        streams.append(_over_all(checkpoint, heads, lambda view: _head_pairs(view, scramble, device, probes)))
    if not streams:
        return list(each([MatchedPair(cos={}, chance={})] * (checkpoint.shape.layers - 1)))
    return [
        MatchedPair(
            **{kind: {role: value for b in blocks for role, value in getattr(b, kind).items()} for kind in MATCHED}
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
    cos, chance, error = ({role: None for pair in found for role in getattr(pair, kind)} for kind in MATCHED)
    empty = MatchedPair(cos=cos, chance=chance, error=error)
    at = dict(zip(layers, found, strict=False))
    return iter([at.get(layer, empty) for layer in range(depth - 1)])


# --- one pair of blocks -------------------------------------------------------------------------


def score_neurons(cosines: Mapping[str, torch.Tensor]) -> dict[str, float | None]:
    """Mean cosine of matched neurons, per matrix held out; `neuron_matches` has them one by one."""
    return _means(neuron_matches(cosines))


def neuron_matches(cosines: Mapping[str, torch.Tensor]) -> "Matches":
    """(neuron,) cosines of matched neurons, per matrix held out.

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
        "up": held_out(matched_on + down.abs(), up * down.sign()),
        "down": held_out(matched_on + up.abs(), down * up.sign()),
    }
    return result if gate is None else {"gate": held_out(up * down, gate)} | result


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
    return _means({"qk": held_out(vo, qk), "vo": held_out(qk, vo)})


Matches = dict[str, np.ndarray | None]
"""Role → the cosines of matched units; None where there are none."""


def _means(found: Matches) -> dict[str, float | None]:
    return {role: None if cos is None else float(np.mean(cos, dtype=np.float64)) for role, cos in found.items()}


def _errors(found: Matches, count: int) -> dict[str, float | None]:
    """Standard errors of means over a sample, drawn from `count` units without returning any."""
    errors: dict[str, float | None] = {}
    for role, cos in found.items():
        size = 0 if cos is None else len(cos)
        left = math.sqrt(max(0.0, 1 - size / count)) if count else 0.0
        errors[role] = left * float(np.std(cos, ddof=1, dtype=np.float64)) / math.sqrt(size) if size > 1 else None
    return errors


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
    norm_a, norm_b = product_norms(*a), product_norms(*b)
    inner = factored_inner_products(*a, *b)  # (head, head')
    scale = norm_a[:, None] * norm_b
    return torch.where(scale > 0, inner / scale.where(scale > 0, 1.0), 0.0), norm_a > 0, norm_b > 0


def _precision(checkpoint: Checkpoint) -> torch.dtype:
    return torch.float32 if checkpoint.shape.hidden >= FLOAT32_HIDDEN else torch.float64


def _sized(checkpoint: Checkpoint, heads: torch.Tensor) -> torch.Tensor:
    """Heads brought to a size that products of four of them bear in float32; cosines do not know it."""
    return (heads / binary_size(heads)[:, None, None].to(heads.dtype)).to(_precision(checkpoint))


# --- streaming over layers ----------------------------------------------------------------------


def _neuron_pairs(
    checkpoint: Checkpoint, roles: Sequence[str], scramble: Scramble | None, device: str
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
            cos = score_neurons({role: before[role] @ rows.mT for role, rows in living.items()})
            chance = {}
            if scramble:
                chance = score_neurons({role: before[role] @ scramble(rows).mT for role, rows in living.items()})
            yield MatchedPair(cos=cos, chance=chance)
        largest = size.argsort(descending=True, stable=True)[:NEURONS]
        before = {role: rows[largest] for role, rows in after.items()}


def _sampled_neuron_pairs(
    checkpoint: Checkpoint, roles: Sequence[str], scramble: Scramble | None, device: str
) -> Iterator[MatchedPair]:
    """Holds one role of one layer, SAMPLE neurons of the old and as many of the new; reads a layer twice."""

    def rows_of(role: str, layer: int) -> torch.Tensor:
        return neuron_rows(checkpoint, role, layer, device, dtype=torch.float32)

    before: dict[str, torch.Tensor] = {}  # role → (neuron, hidden) unit rows of the layer before
    stand_for = 0  # so many neurons
    for layer in range(checkpoint.shape.layers):
        size = torch.stack([row_squares(rows_of(role, layer)) for role in roles]).sqrt()  # (role, neuron)
        alive, largest = (size > 0).all(0), size.prod(0).argsort(descending=True, stable=True)[:NEURONS]
        chosen = largest[:: max(1, len(largest) // SAMPLE)]
        chosen, count = chosen[alive[chosen]], int(alive[largest].sum())
        after, cosines, scrambled = {}, {}, {}
        for role, length in zip(roles, size.float(), strict=True):
            rows = rows_of(role, layer)
            after[role] = rows[chosen] / length[chosen, None]
            if layer:  # the few rows are scrambled instead of the many
                old = torch.cat([before[role], scramble.undo(before[role])]) if scramble else before[role]
                found = old @ (rows if alive.all() else rows[alive]).mT / length[alive]
                cosines[role], scrambled[role] = found[: len(before[role])], found[len(before[role]) :]
            del rows
        if layer:
            cos, chance = neuron_matches(cosines), score_neurons(scrambled) if scramble else {}
            yield MatchedPair(cos=_means(cos), chance=chance, error=_errors(cos, stand_for))
        before, stand_for = after, count


def _head_pairs(
    checkpoint: Checkpoint, scramble: Scramble | None, device: str, probes: torch.Tensor | None
) -> Iterator[MatchedPair]:
    """Holds the attention matrices of two layers."""

    def factors(layer: int) -> HeadFactors:
        blocks = head_factors(checkpoint, layer, device, dtype=torch.float64 if probes is None else torch.float32)
        blocks = [list(block) for block in blocks]
        return tuple((_sized(checkpoint, block.pop(0)), _sized(checkpoint, block.pop(0))) for block in blocks)

    if probes is not None:
        yield from _probed_pairs(map(factors, range(checkpoint.shape.layers)), scramble, probes)
        return
    before = factors(0)
    for layer in range(1, checkpoint.shape.layers):
        after = factors(layer)
        chance = {}
        if scramble:
            chance = score_heads(before, tuple((scramble(left), scramble(right)) for left, right in after))
        yield MatchedPair(cos=score_heads(before, after), chance=chance)
        before = after


def _probed_pairs(
    layers: Iterable[HeadFactors], scramble: Scramble | None, probes: torch.Tensor
) -> Iterator[MatchedPair]:
    """Holds one layer's attention matrices, and what three make of the probes."""
    # A scrambled map makes of the probes what the map makes of these, scrambled.
    elsewhere = scramble.undo(probes.mT).mT if scramble else None
    before = None
    for factors in layers:
        sizes = [product_norms(left, right) for left, right in factors]
        after = tuple(probed(factors, sizes, probes))
        if before is not None:
            cos, error = score_probed(before, after)
            chance = {}
            if scramble:
                turned = (of._replace(images=scramble(of.images)) for of in probed(factors, sizes, elsewhere))
                chance, _ = score_probed(before, turned)
            yield MatchedPair(cos=cos, chance=chance, error=error)
        before = after

