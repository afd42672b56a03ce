"""What is kept of one layer's states: norms, entropies of prompts, and mean cosines, each in three ways.

The entropy is that of a prompt's own states X (token × hidden, not centred over tokens): of p_i = σ_i²/Σσ², over its
largest possible value, ln min(tokens, hidden). It comes from the Gram matrix of the prompt's tokens, in which leaving a
token out is leaving out a row and a column.

The mean cosine of two tokens drawn at random is exact, over all pairs: with unit rows u, (‖Σu‖² − n)/(n(n − 1)).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from analyses.numerics.spectra import eigenvalues, energy_entropy, gram
from analyses.residual_stream.ways import WAYS, masks, massive

PIECE = 256  # tokens of a prompt whose entropy is taken at once; longer prompts are cut into such pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One layer's states reduced; nothing in it has a hidden axis."""

    norms: torch.Tensor  # (token,) float64
    largest: float  # |x| of the largest entry, in the stored scale of the stream
    entropy: dict[str, torch.Tensor]  # way → (piece,) in [0, 1]; NaN where fewer than two tokens are left, or all are 0
    cosine: dict[str, torch.Tensor]  # way → (1 + group,) mean over pairs, of all and with a group of prompts left out
    cosine_centred: dict[str, float]  # way → the same with the mean state removed, of all; NaN where undefined


def pieces(lengths: Sequence[int]) -> list[slice]:
    """Runs of at most PIECE tokens, none across the end of a prompt.

    >>> pieces([3, 300])
    [slice(0, 3, None), slice(3, 153, None), slice(153, 303, None)]
    """
    found, start = [], 0
    for length in lengths:
        number = -(-length // PIECE)
        edges = [start + length * i // number for i in range(number + 1)] if number else []
        found += [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        start += length
    return found


def reduce_state(
    h: torch.Tensor,
    *,
    first: torch.Tensor,
    runs: Sequence[slice],
    groups: Sequence[slice],
    dimensions: int,
    largest: float,
) -> State:
    """Reduce (token, hidden) float64 states.

    Parameters
    ----------
    first : (token,) bool, the first of each prompt.
    runs : of `pieces`. groups : whole prompts, each left out once.
    dimensions : in which the states can lie: hidden, or one less under a LayerNorm.
    largest : of the entries as the model has them, before any centring.
    """
    norms = torch.linalg.vector_norm(h, dim=1)
    kept = masks(first, massive(norms))
    products = {run.start: gram(h[run]) for run in runs}
    entropy: dict[str, torch.Tensor] = {}
    cosine: dict[str, torch.Tensor] = {}
    centred: dict[str, float] = {}
    for way, mask in kept.items():
        if twin := next((w for w in entropy if torch.equal(kept[w], mask)), None):
            entropy[way], cosine[way], centred[way] = entropy[twin], cosine[twin], centred[twin]
            continue
        found = [_entropy(products[run.start], mask[run], dimensions) for run in runs]
        entropy[way] = torch.stack(found).cpu() if found else torch.empty(0, dtype=torch.float64)
        cosine[way] = mean_cosine(h, norms, mask, groups).cpu()
        centred[way] = float(_centred_cosine(h, mask))
    return State(norms=norms.cpu(), largest=largest, entropy=entropy, cosine=cosine, cosine_centred=centred)


def _entropy(products: torch.Tensor, mask: torch.Tensor, dimensions: int) -> torch.Tensor:
    kept = products if bool(mask.all()) else products[mask][:, mask]
    most = min(len(kept), dimensions)
    if most < 2 or not float(kept.diagonal().sum()) > 0:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return energy_entropy(eigenvalues(kept)).to("cpu") / math.log(most)


def mean_cosine(h: torch.Tensor, norms: torch.Tensor, mask: torch.Tensor, groups: Sequence[slice] = ()) -> torch.Tensor:
    """(1 + group,) mean cosine over pairs of the masked tokens with a state; NaN for fewer than two."""
    counted = mask & (norms > 0)
    unit = h / norms.where(counted, torch.inf)[:, None]
    total, count = unit.sum(0), counted.sum().double()
    found = [_over_pairs(total, count)]
    for part in groups:
        found.append(_over_pairs(total - unit[part].sum(0), count - counted[part].sum()))
    return torch.stack(found)


def _centred_cosine(h: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    rows = h[mask]
    rows = rows - rows.mean(0)
    return mean_cosine(rows, torch.linalg.vector_norm(rows, dim=1), torch.ones_like(mask[mask]))[0]


def _over_pairs(total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return (total.square().sum() - count) / (count * (count - 1)) if count > 1 else torch.full_like(count, torch.nan)


def by_way(value: object) -> dict[str, object]:
    """The same for every way."""
    return dict.fromkeys(WAYS, value)
