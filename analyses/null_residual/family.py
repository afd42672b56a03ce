"""One family over depth, each layer compared with the next.

Streams a family's tensors two at a time; each layer's singular values are computed once and serve
both of its pairs. Every number that a tensor does not allow is None, with the reason beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from analyses.errors import LEFT_OUT
from analyses.null_residual.pairs import IDENTICAL, PAGE_SIDE, Chance, FamilyPair, Side, likeness, with_rank

ALIKE = "the two matrices are identical up to scale and the rounding of their storage, so no residual is left"
NO_SPECTRA = f"spectra were {LEFT_OUT} (--spectra none)"
SPECTRAL = ("*eff_rank*", "resid_spec_entropy", "spectrum_error")  # what only a matrix has; patterns of fields


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyTrack:
    """One family over depth."""

    norms: list[float | None]  # (layer,) ‖W_ℓ‖_F; None where a layer lacks the family
    pairs: list[FamilyPair]  # (pair,)
    absent: dict[str, str]  # "pair.field" or "*.field" → why it is None

    @property
    def identical(self) -> int:
        """Pairs that are equal up to a factor and the rounding of their storage."""
        return sum(path.endswith(SPECTRAL[0]) and why.startswith(ALIKE) for path, why in self.absent.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySummary:
    """One family over the pairs where it is defined."""

    pairs: int
    mean_cos: float | None
    median_cos: float | None
    mean_resid: float | None
    mean_scalar_resid: float | None
    mean_null_resid: float | None
    scalar_explained: float | None  # mean cos²
    improve_frac: float | None  # as published: (mean resid − mean scalar_resid)/mean resid
    median_pearson: float | None
    median_z: float | None
    median_eff_rank_ratio: float | None  # matrices only


def follow(
    weights: Iterable[torch.Tensor],
    *,
    seed: Sequence[int],
    spectra: str = "exact",
    first: int = 0,
    beside: bool = True,
) -> FamilyTrack:
    """Compare each of a family's tensors with the next, holding two at a time.

    Parameters
    ----------
    weights : one tensor per layer, of one shape, in any type that floats; matrices (out, in) or gains (hidden,).
    seed : integers that seed this family's shuffles and Haar draws.
    spectra : of the residuals: exact, sampled or none.
    first : the model's layer that the first tensor is of; what is drawn for a pair alone depends on its layer.
    beside : whether shuffled residuals are measured, a chance level that no metric reads.
    """
    generator = _generator(seed)
    norms: list[float] = []
    pairs: list[FamilyPair] = []
    absent: dict[str, str] = {}
    chance, before = None, None
    for weight in weights:
        after = Side(weight)
        ranked = weight.ndim == 2 and spectra != "none"
        norms.append(after.norm)
        if ranked and chance is None:
            chance = Chance(*weight.shape, generator, device=weight.device, sampled=spectra == "sampled")
        if before is not None:
            pair = FamilyPair()
            if before.norm > 0 and after.norm > 0:
                pair = likeness(before, after)
                vectors = _generator((*seed, first + len(pairs))) if spectra == "sampled" else None
                ranks = dict(vectors=vectors, shuffled=beside)
                pair = with_rank(pair, before, after, chance, **ranks) if ranked else pair
            reasons = _absences(pair, weight.shape, spectra)
            absent |= {f"{len(pairs)}.{field}": why for field, why in reasons.items()}
            pairs.append(pair)
        before = after
        del weight, after  # or the next tensor would be the third in memory
    return FamilyTrack(norms=norms, pairs=pairs, absent=absent)


def spread(track: FamilyTrack, layers: Sequence[int], lacking: Mapping[int, str]) -> FamilyTrack:
    """A track of the layers that have a family, over all layers: each is compared with the next that has it.

    Parameters
    ----------
    layers : those of the track. lacking : the others → why they lack the family.
    """
    depth = len(layers) + len(lacking)
    norms: list[float | None] = [None] * depth
    pairs = [FamilyPair() for _ in range(depth - 1)]
    absent = {f"{layer}.*": why for layer, why in lacking.items() if layer < depth - 1}
    for layer, norm in zip(layers, track.norms, strict=True):
        norms[layer] = norm
    for layer, pair in zip(layers, track.pairs, strict=False):
        pairs[layer] = pair
    if layers and layers[-1] < depth - 1:
        absent[f"{layers[-1]}.*"] = "no later layer has it"
    for path, why in track.absent.items():
        pair, _, field = path.partition(".")
        absent[f"{layers[int(pair)]}.{field}"] = why
    return FamilyTrack(norms=norms, pairs=pairs, absent=absent)


def _generator(seed: Sequence[int]) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))


def _absences(pair: FamilyPair, shape: Sequence[int], spectra: str) -> dict[str, str]:
    """Field pattern → why it is None, for one pair of tensors of this shape."""
    if pair.cos is None:
        return {"*": "one of the two tensors is all zero, so it has no direction"}
    absent = {}
    if pair.pearson is None:
        absent |= dict.fromkeys(
            ("pearson", "z"), "all entries of one tensor are equal, so every matching of entries gives this cosine"
        )
    if len(shape) == 1:
        absent |= dict.fromkeys(SPECTRAL, "a gain is a vector and has no spectrum")
    elif spectra == "none":
        absent |= dict.fromkeys(SPECTRAL, NO_SPECTRA)
    elif pair.resid_eff_rank is None:
        absent |= dict.fromkeys(SPECTRAL, ALIKE)
    elif pair.eff_rank_page is None:
        absent["eff_rank_page"] = (
            f"Page's entropy is right to about 1 % from side {PAGE_SIDE} on; the smaller side is {min(shape)}"
        )
    elif pair.spectrum_error is None:
        absent["spectrum_error"] = "the spectrum was sampled, and its energy is exact by construction"
    return absent


def _defined(pairs: Sequence[FamilyPair], field: str) -> list[float]:
    return [value for pair in pairs if (value := getattr(pair, field)) is not None]


def summarise(pairs: Sequence[FamilyPair]) -> FamilySummary:
    """Means and medians over the pairs where a number is defined; None where it is nowhere."""

    def over_pairs(statistic: Callable[[list[float]], float], field: str) -> float | None:
        values = _defined(pairs, field)
        return float(statistic(values)) if values else None

    resid, scalar_resid = over_pairs(np.mean, "resid_norm"), over_pairs(np.mean, "scalar_resid")
    return FamilySummary(
        pairs=len(_defined(pairs, "cos")),
        mean_cos=over_pairs(np.mean, "cos"),
        median_cos=over_pairs(np.median, "cos"),
        mean_resid=resid,
        mean_scalar_resid=scalar_resid,
        mean_null_resid=over_pairs(np.mean, "null_resid"),
        scalar_explained=over_pairs(np.mean, "scalar_explained"),
        # Below IDENTICAL both means are rounding, and their ratio says nothing.
        improve_frac=(resid - scalar_resid) / resid if resid is not None and resid > IDENTICAL else None,
        median_pearson=over_pairs(np.median, "pearson"),
        median_z=over_pairs(np.median, "z"),
        median_eff_rank_ratio=over_pairs(np.median, "eff_rank_ratio"),
    )


def absent_pairs(family: str, track: FamilyTrack) -> dict[str, str]:
    """A reason per pair and field, or one for all pairs where they share it."""
    shared: dict[tuple[str, str], list[str]] = {}
    for path, why in track.absent.items():
        pair, _, field = path.partition(".")
        shared.setdefault((field, why), []).append(pair)
    return {
        f"pair_results.{pair}.families.{family}.{field}": why
        for (field, why), which in shared.items()
        for pair in (["*"] if len(which) == len(track.pairs) else which)
    }


def absent_summary(family: str, summary: FamilySummary, is_gain: bool, spectra: str) -> dict[str, str]:
    left = NO_SPECTRA if spectra == "none" else "no pair of layers leaves a residual"
    spectrum = "a gain is a vector and has no spectrum" if is_gain else left
    reasons = {
        "improve_frac": "no pair of layers leaves a residual to be improved on",
        "median_eff_rank_ratio": spectrum,
        "median_pearson": "constant in at least one layer of every pair",
        "median_z": "constant in at least one layer of every pair",
    }
    missing = [f.name for f in fields(summary) if getattr(summary, f.name) is None]
    return {
        f"summary.{family}.{name}": reasons.get(name, "all zero in at least one layer of every pair")
        for name in missing
    }
