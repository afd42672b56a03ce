"""Phases of depth, and whether the layers of one write into a shared subspace more than neighbours do anyway.

Phases are contiguous runs of layers, so layers of one phase are also close in depth, and close
layers are alike in any drifting stack. The comparison therefore matches pairs on their distance
|ℓ − ℓ'|, and its null is other contiguous segmentations with as many phases.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PHASES = ("A", "B", "C", "D", "E", "tail")
PUBLISHED_DEPTH = 64  # the depth at which the phases were published
PUBLISHED_STARTS = (0, 7, 10, 32, 47, 59)  # first layer of each phase there
FRACTIONS = (0.0, 0.11, 0.15, 0.5, 0.75, 0.92)  # of the depth, at every other depth
BASIS_RANK = 8  # dimension of a phase's shared basis
SEGMENTATIONS = 2000  # a p-value of 0.05 then has a Monte Carlo error of 0.005; the least survives 100 other claims
PLANTED = 0.1  # |cos| by which layers of one phase are more alike, planted where the power of the test is asked
PLANTS = 100  # segmentations in which it is planted: a power of 0.8 is right to 0.04
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A run of layers and what their top directions share."""

    first: int
    last: int  # inclusive
    intra: float | None  # mean |cos| of pairs inside, published directions
    cross: float | None  # mean |cos| with layers outside
    intra_centred: float | None  # the same for centred directions
    cross_centred: float | None
    # [layer of the phase] share of its top direction in the phase's basis; None for a layer without one
    capture: list[float | None]  # basis contains the layer, as published
    capture_chance: float  # of the published capture for random directions, about min(1, 8/(N·k))
    capture_left_out: list[float | None] | None  # basis of the phase's other layers
    capture_left_out_centred: list[float | None] | None
    capture_left_out_chance: float | None  # basis rank / hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTest:
    """Distance-matched intra − cross of one segmentation against others."""

    difference: float | None  # mean intra − mean cross similarity at equal distance; None if no distance has both
    p: float | None  # share of segmentations that separate at least as well, this one counted
    segmentations: int  # other segmentations compared, all distinct
    # share of segmentations, the phases' lengths in another order, in which PLANTED is seen; None where there is none
    power: float | None


def phase_ranges(layers: int) -> dict[str, range]:
    """Layers of each phase; empty ranges where a shallow model has no layer for one.

    The published ranges at 64 layers; else phases start at ⌊fraction·layers + ½⌋.

    >>> phase_ranges(64)["B"], phase_ranges(24)["C"]
    (range(7, 10), range(4, 12))
    """
    if layers == PUBLISHED_DEPTH:
        starts = PUBLISHED_STARTS
    else:
        starts = tuple(math.floor(fraction * layers + 0.5) for fraction in FRACTIONS)
    return {name: range(a, b) for name, a, b in zip(PHASES, starts, (*starts[1:], layers), strict=True)}


def describe(
    phase: range, cos: np.ndarray, cos_centred: np.ndarray, directions: np.ndarray, centred: np.ndarray
) -> Phase:
    """What one phase's layers share.

    Parameters
    ----------
    cos, cos_centred : (layer, layer) |cos| of top directions; NaN for a layer that has none.
    directions, centred : (layer, mode, hidden), of all layers.
    """
    inside = slice(phase.start, phase.stop)
    intra, cross = intra_cross(cos, phase)
    intra_centred, cross_centred = intra_cross(cos_centred, phase)
    left_out, left_out_centred = capture_left_out(directions[inside]), capture_left_out(centred[inside])
    return Phase(
        first=phase.start,
        last=phase.stop - 1,
        intra=intra,
        cross=cross,
        intra_centred=intra_centred,
        cross_centred=cross_centred,
        capture=_where_any(capture(directions[inside]), directions[inside]),
        capture_chance=min(1.0, BASIS_RANK / (len(phase) * directions.shape[1])),
        capture_left_out=_where_any(left_out[0], directions[inside]) if left_out else None,
        capture_left_out_centred=_where_any(left_out_centred[0], centred[inside]) if left_out_centred else None,
        capture_left_out_chance=left_out[1] if left_out else None,
    )


def intra_cross(similarity: np.ndarray, phase: range) -> tuple[float | None, float | None]:
    """Mean similarity of pairs inside a phase, and of its layers with all others, as published.

    similarity : (layer, layer), symmetric. None where there is no such pair.
    """
    inside = np.zeros(len(similarity), dtype=bool)
    inside[list(phase)] = True
    block = similarity[np.ix_(inside, inside)]
    intra = block[np.triu_indices(len(block), 1)]
    cross = similarity[np.ix_(inside, ~inside)]
    return (float(intra.mean()) if intra.size else None), (float(cross.mean()) if cross.size else None)


def capture(directions: np.ndarray) -> np.ndarray:
    """Share of each layer's top direction in a basis that contains it, as published.

    The basis holds the leading BASIS_RANK right singular vectors of all layers' directions stacked.
    With N layers of k directions chance is about 8/(N·k), and the result is 1 where N·k ≤ 8.

    directions : (layer, mode, hidden), unit rows (or zero rows where a layer has fewer).
    """
    basis = _basis(directions)
    return ((directions[:, 0] @ basis.T) ** 2).sum(-1)


def capture_left_out(directions: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Share of each layer's top direction in the basis of the phase's *other* layers, and chance.

    Chance is (basis rank)/hidden, that of a direction drawn at random; None for a single layer.
    """
    if len(directions) < 2:
        return None
    shares, ranks = [], []
    for layer, of_layer in enumerate(directions):
        basis = _basis(np.delete(directions, layer, 0))
        shares.append(float(((basis @ of_layer[0]) ** 2).sum()))
        ranks.append(len(basis))
    return np.array(shares), float(np.mean(ranks)) / directions.shape[-1]


def _basis(directions: np.ndarray) -> np.ndarray:
    """(≤ BASIS_RANK, hidden) orthonormal rows that hold most of the stacked directions."""
    stacked = directions.reshape(-1, directions.shape[-1])
    _, sigma, rows = np.linalg.svd(stacked, full_matrices=False)
    rank = int((sigma > 1e-8 * sigma[0]).sum()) if sigma[0] > 0 else 0  # zero rows add nothing
    return rows[: min(rank, BASIS_RANK)]


def phase_test(similarity: np.ndarray, phases: dict[str, range], *, seed: int) -> PhaseTest:
    """Distance-matched intra − cross of the given phases, and its p-value.

    At each distance that has pairs of both kinds, mean intra − mean cross; averaged over distances
    with the weight n_i·n_c/(n_i + n_c), the inverse variance of such a difference. Segmentations
    differ in how many pairs they can compare, so they are ranked by the difference times the root
    of the total weight, which has the same variance for all of them when nothing is shared.

    The power: PLANTED is added to the similarity of layers of one segment, of the phases' lengths in another order,
    and that segmentation is tested as the phases are, on what this model's layers share anyway.

    Parameters
    ----------
    similarity : (layer, layer), symmetric.
    phases : contiguous ranges that cover all layers; empty ones are left out.
    seed : of the samples, where more segmentations exist than are compared, or planted in.
    """
    layers = len(similarity)
    starts = tuple(phase.start for phase in phases.values() if len(phase) and phase.start > 0)
    others = _segmentations(layers, starts, seed)
    row, column = np.triu_indices(layers, 1)
    at = column - row - 1  # (pair,) index of its distance
    contrast, size, _ = _contrasts(layers, [starts, *others], at)
    if size[0] == 0:
        return PhaseTest(difference=None, p=None, segmentations=0, power=None)
    contrast, size = contrast[size > 0], size[size > 0]
    values = similarity[row, column]
    score = contrast @ values
    above = int((score[1:] >= score[0] - 1e-12).sum())  # a tie is no separation; rounding is no tie-break
    n = len(score) - 1
    return PhaseTest(
        difference=float(score[0] / size[0]),
        p=(1 + above) / (1 + n),
        segmentations=n,
        power=_power(contrast, values, [starts, *others], _reordered(phases, starts, seed), at),
    )


def _contrasts(
    layers: int, segmentations: Sequence[tuple[int, ...]], at: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores as linear forms of the pairs' similarities.

    Returns
    -------
    contrast : (segmentation, pair), whose product with similarities is the score. size : (segmentation,), the root
    of the total weight. intra : (segmentation, pair), 1 inside a segment.
    """
    labels = np.array([_labels(layers, each) for each in segmentations])  # (segmentation, layer)
    row, column = np.triu_indices(layers, 1)
    distance = np.eye(layers - 1)[at]  # (pair, distance), one-hot
    intra = (labels[:, row] == labels[:, column]).astype(float)
    share = (intra @ distance) / distance.sum(0)  # of the pairs of a distance that are inside
    size = np.sqrt((share * (1 - share) * distance.sum(0)).sum(1))
    # Weight n_i·n_c/n times (1/n_i inside, −1/n_c across) is what a pair is above its distance's share.
    contrast = (intra - share[:, at]) / np.where(size > 0, size, 1)[:, None]
    return contrast, size, intra


def _power(
    contrast: np.ndarray,
    values: np.ndarray,
    compared: Sequence[tuple[int, ...]],
    planted: Sequence[tuple[int, ...]],
    at: np.ndarray,
) -> float | None:
    if not planted:
        return None
    layers = int(at.max()) + 2
    own, _, intra = _contrasts(layers, planted, at)
    scores = (own * (values + PLANTED * intra)).sum(1)  # (plant,)
    others = (contrast @ values)[:, None] + PLANTED * contrast @ intra.T  # (segmentation, plant)
    itself = np.array([each not in compared for each in planted])  # counts once, as one of them or beside them
    p = (itself + (others >= scores - 1e-12).sum(0)) / (itself + len(others))
    return float((p <= LEVEL).mean())


def _reordered(phases: Mapping[str, range], starts: tuple[int, ...], seed: int) -> list[tuple[int, ...]]:
    """Starts of segmentations with the phases' lengths in another order, PLANTS at most."""
    lengths = [len(phase) for phase in phases.values() if len(phase)]
    orders = {tuple(np.cumsum(order)[:-1].tolist()) for order in itertools.permutations(lengths)} - {starts}
    found = sorted(orders)
    drawn = np.random.default_rng([seed, 1]).permutation(len(found))[:PLANTS]
    return [found[i] for i in sorted(drawn.tolist())]


def _where_any(shares: np.ndarray, directions: np.ndarray) -> list[float | None]:
    """The shares of layers that have a top direction, None for the others."""
    exists = (directions[:, 0] != 0).any(1).tolist()
    return [min(share, 1.0) if known else None for share, known in zip(shares.tolist(), exists, strict=True)]


def _labels(layers: int, starts: tuple[int, ...]) -> np.ndarray:
    """(layer,) number of the segment that a layer is in; `starts` are those after the first."""
    return np.searchsorted(np.array(starts), np.arange(layers), side="right")


def _segmentations(layers: int, starts: tuple[int, ...], seed: int) -> list[tuple[int, ...]]:
    """Distinct contiguous segmentations other than `starts`, with as many segments: all, or a sample."""
    if math.comb(layers - 1, len(starts)) <= SEGMENTATIONS + 1:
        return [each for each in itertools.combinations(range(1, layers), len(starts)) if each != starts]
    rng = np.random.default_rng(seed)
    distinct: dict[tuple[int, ...], None] = {}  # an ordered set
    while len(distinct) < SEGMENTATIONS:
        drawn = rng.random((SEGMENTATIONS, layers - 1)).argsort(1)[:, : len(starts)] + 1
        distinct |= dict.fromkeys(map(tuple, np.sort(drawn, 1).tolist()))
        distinct.pop(starts, None)
    return list(distinct)[:SEGMENTATIONS]
