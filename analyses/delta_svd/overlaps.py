"""Overlap of the directions that adjacent layers write to, with groups of prompts left out.

Of the leading DIRECTIONS of both centred writes, V and V' with orthonormal rows, ‖V V'ᵀ‖_F² over what directions drawn
at random would share, k·k'/D; and |cos| of the first two. Values with a group left out come from `left_out`.
"""

from dataclasses import dataclass

import torch

from analyses.delta_svd.left_out import LeftOut

KEPT = 8  # directions compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """One layer's directions."""

    span: torch.Tensor  # (mode, hidden) orthonormal rows, zero where there are fewer
    frames: torch.Tensor | None  # (group, mode, mode), see `LeftOut`


def directions_of(span: torch.Tensor, without: LeftOut | None) -> Frames:
    return Frames(span=span.cpu(), frames=None if without is None else without.frames)


def overlap(one: Frames, other: Frames, *, dimensions: int) -> torch.Tensor | None:
    """Overlap over chance, and |cos| of the first directions, of all tokens and with each group left out.

    Returns
    -------
    (2, 1 + group), or None where a layer has no directions. The overlap is NaN where `dimensions` are fewer
    than four times the directions, which then meet anyway.
    """
    if one.frames is None or other.frames is None:
        return None
    cross = one.span @ other.span.mT  # (mode, mode')
    turned = one.frames.mT @ cross @ other.frames  # (group, mode, mode')
    every = torch.cat([cross[None], turned])
    k = [min(KEPT, int(frame.span.any(1).sum())) for frame in (one, other)]
    chance = k[0] * k[1] / dimensions
    over = every[:, : k[0], : k[1]].square().sum((1, 2)) / chance
    if dimensions < 4 * max(k):
        over = torch.full_like(over, torch.nan)
    return torch.stack([over, every[:, 0, 0].abs().clamp_max(1)])
