"""What is kept of one layer's states: norms, entropies of prompts, and mean cosines, each in three ways.

The entropy is that of a prompt's own states X (token × hidden, not centred over tokens): of p_i = σ_i²/Σσ², over its
largest possible value, ln min(tokens, hidden). It comes from the Gram matrix of the prompt's tokens, in which leaving a
token out is leaving out a row and a column.

The mean cosine of two tokens drawn at random is exact, over all pairs: with unit rows u, (‖Σu‖² − n)/(n(n − 1)).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from analyses.numerics.spectra import eigenvalues, energy_entropy, gram
from analyses.residual_stream.ways import WAYS, by_mask, masks, massive

PIECE = 256  # tokens of a prompt whose entropy is taken at once; longer prompts are cut into such pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One layer's states reduced; nothing in it has a hidden axis."""

    norms: torch.Tensor  # (token,) float64
    massive: torch.Tensor  # (token,) bool
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
    entropies: Sequence[str] = WAYS,
    cosines: Sequence[str] = WAYS,
    centred: bool = True,
) -> State:
    """Reduce (token, hidden) float64 states.

    Parameters
    ----------
    first : (token,) bool, the first of each prompt.
    runs : of `pieces`. groups : whole prompts, together all tokens, each left out once.
    dimensions : in which the states can lie: hidden, or one less under a LayerNorm.
    largest : of the entries as the model has them, before any centring.
    entropies, cosines : the ways in which they are taken. centred : whether mean cosines about the mean state are.
    """
    norms = torch.linalg.vector_norm(h, dim=1)
    large = massive(norms)
    kept = masks(first, large)
    entropy, cosine = ({way: kept[way] for way in ways} for ways in (entropies, cosines))
    products = [gram(h[run]) for run in runs] if entropy else []
    return State(
        norms=norms.cpu(),
        massive=large.cpu(),
        largest=largest,
        entropy=by_mask(entropy, lambda way, mask: _entropies(products, [mask[run] for run in runs], dimensions)),
        cosine=dict(zip(cosine, mean_cosines(h, norms, torch.stack([*cosine.values()]), groups).cpu(), strict=True))
        if cosine
        else {},
        cosine_centred=by_mask(cosine if centred else {}, lambda way, mask: _centred_cosine(h, mask)),
    )


def _entropies(products: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], dimensions: int) -> torch.Tensor:
    """(piece,) of the tokens that each mask keeps, from the Gram matrix of each piece's tokens."""
    if not products:
        return torch.empty(0, dtype=torch.float64)
    kept = [g if bool(mask.all()) else g[mask][:, mask] for g, mask in zip(products, masks, strict=True)]
    energies = torch.nn.utils.rnn.pad_sequence([eigenvalues(g) for g in kept], batch_first=True)
    most = torch.tensor([min(len(g), dimensions) for g in kept], dtype=torch.float64, device=energies.device)
    return torch.where(most > 1, energy_entropy(energies) / most.log(), torch.nan).cpu()


def mean_cosines(h: torch.Tensor, norms: torch.Tensor, masks: torch.Tensor, groups: Sequence[slice]) -> torch.Tensor:
    """(mask, 1 + group) mean cosine over pairs of the tokens with a state that each (mask, token) mask keeps.

    Of all of them, and with each of the groups left out, which together are all; NaN for fewer than two tokens.
    """
    counted = (masks & (norms > 0)).to(h.dtype)
    unit = h / norms.where(norms > 0, torch.inf)[:, None]
    totals = torch.stack([counted[:, part] @ unit[part] for part in groups], 1)  # (mask, group, hidden)
    counts = torch.stack([counted[:, part].sum(1) for part in groups], 1)
    totals, counts = (torch.cat([x.sum(1, keepdim=True), x.sum(1, keepdim=True) - x], 1) for x in (totals, counts))
    return torch.where(counts > 1, (totals.square().sum(2) - counts) / (counts * (counts - 1)), torch.nan)


def _centred_cosine(h: torch.Tensor, mask: torch.Tensor) -> float:
    rows = h[mask]
    rows = rows - rows.mean(0)
    every = torch.ones_like(mask[mask])[None]
    return float(mean_cosines(rows, torch.linalg.vector_norm(rows, dim=1), every, [slice(None)])[0, 0])
