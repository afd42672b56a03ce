"""Families with several experts in each layer, compared over depth expert by expert.

Every expert is followed on its own, expert e of a layer against expert e of the next, two matrices
at a time; nothing is left out and none stands for the others. The family's numbers are the means
over experts, and its scale is that of all of them together. The pairing by index is arbitrary: the
order of experts is a free permutation of the parameters.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from analyses.null_residual.family import FamilyTrack, follow
from analyses.null_residual.pairs import FamilyPair

UNDEFINED = "one of the two experts is all zero, or the two are identical up to scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTrack:
    """One family, expert by expert; axes pair or layer, then expert."""

    count: int  # experts per layer
    cos: list[list[float | None]]  # (pair, expert), in [−1, 1]
    eff_rank_ratio: list[list[float | None]]  # (pair, expert), resid_eff_rank / eff_rank_haar
    scales: list[list[float | None]]  # (layer, expert), ‖W‖_F; None where a layer has no choice of experts


def follow_experts(
    weights: Callable[[int], Iterable[torch.Tensor]],
    count: int,
    *,
    seed: Sequence[int],
    spectra: str = "exact",
    first: int = 0,
    beside: bool = True,
) -> list[FamilyTrack]:
    """Each expert over depth.

    Parameters
    ----------
    weights : expert → its matrices, one per layer, in any type that floats.
    seed : integers; the expert's number is added to them.
    spectra, first, beside : as `family.follow` takes them.
    """
    options = dict(spectra=spectra, first=first, beside=beside)
    return [follow(weights(expert), seed=(*seed, expert), **options) for expert in range(count)]


def combine(tracks: Sequence[FamilyTrack]) -> FamilyTrack:
    """The mean over experts of each number where it is defined; the scale of all experts together."""
    shared = set.intersection(*(set(track.absent) for track in tracks))
    return FamilyTrack(
        norms=[
            None if None in norms else math.hypot(*norms) for norms in zip(*(t.norms for t in tracks), strict=True)
        ],
        pairs=[_mean(pairs) for pairs in zip(*(track.pairs for track in tracks), strict=True)],
        absent={path: f"{why} (in every expert)" for path, why in tracks[0].absent.items() if path in shared},
    )


def _mean(pairs: Sequence[FamilyPair]) -> FamilyPair:
    means = {}
    for field in fields(FamilyPair):
        values = [value for pair in pairs if (value := getattr(pair, field.name)) is not None]
        means[field.name] = float(np.mean(values)) if values else None
    return FamilyPair(**means)


def expert_track(tracks: Sequence[FamilyTrack]) -> ExpertTrack:
    """What the record keeps of each expert."""

    def column(field: str) -> list[list[float | None]]:
        return [[getattr(pair, field) for pair in pairs] for pairs in zip(*(t.pairs for t in tracks), strict=True)]

    return ExpertTrack(
        count=len(tracks),
        cos=column("cos"),
        eff_rank_ratio=column("eff_rank_ratio"),
        scales=[list(norms) for norms in zip(*(track.norms for track in tracks), strict=True)],
    )


def mean_abs_cos(tracks: Sequence[FamilyTrack]) -> list[float | None]:
    """(pair,) mean over experts of |cos|: opposite signs must not cancel."""
    rows = ([abs(p.cos) for p in pairs if p.cos is not None] for pairs in zip(*(t.pairs for t in tracks), strict=True))
    return [float(np.mean(row)) if row else None for row in rows]
