"""Covariances of adjacent layers' writes: how alike, beyond their size, are the dimensions written to?

M_ℓ = XᵀX of the write centred over tokens, X (token × hidden). With dev(M) = M − (tr M/D)·1, what is left when M
is made equal in all directions, align = ⟨dev M, dev M'⟩/(‖dev M‖‖dev M'‖): 1 for the same shape of any size, near
0 for unrelated ones; a rotation of the stream leaves it alone. Eight dimensions that all layers share move it
though no layer's first direction be another's. Under LayerNorm writes are centred over features, so that D−1
dimensions are left.

With a group of prompts left out, M_(g) = M − M_g − s_g s_gᵀ/(n − n_g), s_g the group's sum of rows of X: exact,
mean included. All that is asked of these matrices is inner products between groups: of Grams where the side
allows, else of the rows, ⟨M_g, M'_h⟩ = ‖X_g X'_hᵀ‖².
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from analyses.numerics.spectra import gram

GRAM_BYTES = 1 << 27  # of all groups' Grams; wider ones are never made
ROUNDING = 1e-13  # of ⟨dev M, dev M'⟩ against tr M·tr M': a few hundred terms of float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """One layer's centred write, as inner products with others need it."""

    rows: torch.Tensor | None  # (token, hidden), where Grams would be larger
    grams: torch.Tensor | None  # (group, hidden, hidden)
    groups: tuple[slice, ...]
    left: torch.Tensor  # (group, hidden): s_g/√(n − n_g)
    traces: torch.Tensor  # (1 + group,) of M and of each M_(g)
    dimensions: int  # that a write can have, hidden or one less


@dataclass(frozen=True, slots=True, kw_only=True)
class Covariance:
    """Moments and their own size."""

    moments: Moments
    square: torch.Tensor  # (1 + group,) ‖dev M‖²


def covariance(x: torch.Tensor, groups: Sequence[slice], *, dimensions: int) -> Covariance:
    """Of a write centred over tokens.

    Parameters
    ----------
    x : (token, hidden) float64; kept where the Grams of its groups would be larger.
    groups : runs of tokens that together are all of them, at least two.
    dimensions : that a write can have, hidden or one less.
    """
    tokens, hidden = x.shape
    small = hidden <= tokens and 8 * len(groups) * hidden**2 <= GRAM_BYTES
    rest = torch.tensor([tokens - (part.stop - part.start) for part in groups], dtype=x.dtype, device=x.device)
    left = torch.stack([x[part].sum(0) for part in groups]) / rest.sqrt()[:, None]
    energy = torch.stack([x[part].square().sum() for part in groups])
    grams = x.new_empty(len(groups), hidden, hidden) if small else None
    for i, part in enumerate(groups if small else ()):
        grams[i] = gram(x[part].mT)
    moments = Moments(
        rows=None if small else x,
        grams=grams,
        groups=tuple(groups),
        left=left,
        traces=torch.cat([energy.sum()[None], energy.sum() - energy - left.square().sum(1)]),
        dimensions=dimensions,
    )
    return Covariance(moments=moments, square=_dev_product(moments, moments))


def alignment(one: Covariance, other: Covariance) -> torch.Tensor:
    """⟨dev M, dev M'⟩/(‖dev M‖‖dev M'‖), of all tokens and with each group left out; (1 + group,).

    NaN where a write has the same energy in all directions, or none.
    """
    size = (one.square * other.square).clamp_min(0).sqrt()
    scale = one.moments.traces * other.moments.traces
    return torch.where(size > ROUNDING * scale.abs(), _dev_product(one.moments, other.moments) / size, torch.nan)


def _dev_product(one: Moments, other: Moments) -> torch.Tensor:
    """⟨dev M, dev M'⟩, and of M_(g) and M'_(g); (1 + group,)."""
    if one.grams is not None:
        table = one.grams.flatten(1) @ other.grams.flatten(1).mT  # (group, group')
        forward = _along(one.grams, other.left)
        back = _along(other.grams, one.left)
    else:
        table = torch.stack([_blocks(one.rows[part], other) for part in one.groups])
        forward = torch.stack([(one.rows[part] @ other.left.mT).square().sum(0) for part in one.groups])
        back = torch.stack([(other.rows[part] @ one.left.mT).square().sum(0) for part in other.groups])
    both = (one.left * other.left).sum(1).square()
    without = table.sum() - table.sum(1) - table.sum(0) + table.diagonal()
    without = without - (forward.sum(0) - forward.diagonal()) - (back.sum(0) - back.diagonal()) + both
    inner = torch.cat([table.sum()[None], without])
    return inner - one.traces * other.traces / one.dimensions


def _along(grams: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """vᵀ M v of every (group, hidden, hidden) Gram along every vector, (group, vector)."""
    return ((vectors @ grams) * vectors).sum(-1)


def _blocks(rows: torch.Tensor, other: Moments) -> torch.Tensor:
    """‖rows X'_hᵀ‖² for every group h of another write, (group',)."""
    return torch.stack([(rows @ other.rows[part].mT).square().sum() for part in other.groups])
