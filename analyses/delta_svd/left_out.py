"""Leading energies and directions of a write with a group of prompts left out, without another decomposition.

The leading directions of the whole text span a space of SPAN dimensions; within it the eigenvalue problem of the
text without a group is solved exactly (Rayleigh and Ritz). What is approximated: directions that lead only when a
group is left out and have no part in that space. Energies come out too small by the square of the part
that is missed, and the standard errors made of them by as little.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

SPAN = 16  # twice the directions that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Of one write, with each group left out."""

    top1: torch.Tensor  # (group,) share of the leading direction in all energy; NaN where nothing is left
    frames: torch.Tensor  # (group, SPAN, mode) leading directions in coordinates of the span, by falling energy


def left_out(rows: torch.Tensor, span: torch.Tensor, groups: Sequence[slice], *, centred: bool) -> LeftOut:
    """Solve the small problems.

    Parameters
    ----------
    rows : (token, hidden) float64; with `centred` their mean over all tokens is zero, and is made so again
        when a group is missing.
    span : (SPAN, hidden) orthonormal rows, or zero rows where there are fewer.
    """
    scores = rows @ span.mT  # (token, SPAN)
    grams = torch.stack([scores[part].mT @ scores[part] for part in groups])
    energy = torch.stack([rows[part].square().sum() for part in groups])
    small, total = grams.sum(0) - grams, energy.sum() - energy
    if centred:
        rest = torch.tensor([len(rows) - (p.stop - p.start) for p in groups], dtype=rows.dtype, device=rows.device)
        sums = torch.stack([rows[part].sum(0) for part in groups]) / rest.sqrt()[:, None]  # (group, hidden)
        along = sums @ span.mT
        small = small - along[:, :, None] * along[:, None, :]
        total = total - sums.square().sum(1)
    values, vectors = torch.linalg.eigh(small.cpu())  # (group, SPAN), (group, SPAN, SPAN)
    top1 = torch.where(total.cpu() > 0, values[:, -1] / total.cpu(), torch.nan)
    return LeftOut(top1=top1, frames=vectors.flip(2))
