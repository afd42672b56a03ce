"""Overlap of the subspaces of the residual stream that heads of different layers read from most.

A head's top-k right singular vectors of g (the query side) span the subspace that it reads from most. Two such
subspaces overlap by ‖V_ℓ V_ℓ'ᵀ‖_F²/k, the mean squared cosine of their principal angles: 1 for equal ones,
k/hidden on average for unrelated ones.
"""

from typing import NamedTuple

import numpy as np
import torch

from analyses.head_grams.all_pairs import scramble
from analyses.head_grams.layer_pairs import Pairs, mean, median


class Overlaps(NamedTuple):
    """Overlaps in [0, 1], float64; NaN for a head of rank below k, whose k-th direction is arbitrary."""

    adjacent: np.ndarray  # (pair, head), at equal head index
    adjacent_matched: np.ndarray  # (pair, head), at the best matching by |similarity|
    by_distance: np.ndarray  # (layer − 1,), mean over heads and pairs at |ℓ − ℓ'| = 1, 2, …, at equal head index
    chance_matched: float  # median at the best matching of layers with scrambled coordinates


def compare_subspaces(directions: torch.Tensor, pairs: Pairs, *, seed: int) -> Overlaps:
    """Overlaps between layers at equal index and at the matchings of `pairs`.

    Parameters
    ----------
    directions : (layer, head, k, hidden), orthonormal rows; a zero row where the rank is lower.
    pairs : matchings of adjacent layers, as they are and with scrambled coordinates.
    seed : the one that `pairs` was made with, so that the same coordinates are scrambled again.
    """
    layers, heads, top, _ = directions.shape
    at_index = np.empty((layers, layers, heads))
    for head in range(heads):
        rows = directions[:, head].double().flatten(0, 1)  # (layer·k, hidden)
        cosines = (rows @ rows.mT).view(layers, top, layers, top)
        at_index[..., head] = cosines.square().sum((1, 3)).numpy() / top
    thin = (directions[:, :, -1] == 0).all(-1).numpy()  # (layer, head)
    at_index[thin[:, None] | thin[None, :]] = np.nan
    pair = range(layers - 1)
    return Overlaps(
        adjacent=at_index[pair, range(1, layers)],
        adjacent_matched=np.stack([_overlap(directions[i], directions[i + 1], pairs.matching[i]) for i in pair]),
        by_distance=np.array([mean(at_index.diagonal(step)) for step in range(1, layers)]),
        chance_matched=median(
            np.stack(
                [
                    _overlap(
                        directions[i], scramble(directions[i + 1], seed=seed, pair=i, side=0), pairs.chance_matching[i]
                    )
                    for i in pair
                ]
            )
        ),
    )


def _overlap(a: torch.Tensor, b: torch.Tensor, matching: np.ndarray) -> np.ndarray:
    """Overlap of each head of one layer with the head of another that it is matched to, (head,)."""
    b = b[torch.from_numpy(matching)]
    overlap = (a.double() @ b.double().mT).square().sum((-2, -1)) / a.shape[1]
    thin = (a[:, -1] == 0).all(-1) | (b[:, -1] == 0).all(-1)
    return overlap.masked_fill(thin, torch.nan).numpy()
