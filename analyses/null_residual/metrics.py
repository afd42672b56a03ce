"""The numbers of the adjacent-layer comparison that are judged.

A claim over several families stands or falls with the worst of them, so each metric is a median
over pairs of layers in the worst family. The worst is chosen from the same data, so every family
keeps its own bounds and those that hold for all families at once.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from analyses.null_residual import scales
from analyses.null_residual.experts import mean_abs_cos
from analyses.null_residual.family import ALIKE, FamilyTrack
from analyses.null_residual.matching import MatchedPair
from analyses.null_residual.pairs import FamilyPair
from analyses.numerics import intervals
from analyses.numerics.families import worst_of
from analyses.records import Metric
from analyses.weights.architectures import GAINS, MATRICES

SIDE = 32  # smallest side for the rank claim; below, the spectra have too few modes to be compared


def worst(
    rows: Mapping[str, Sequence[float | None]],
    reduce: Callable[..., np.ndarray],
    *,
    seed: int,
    method: str,
    absent: str,
    within: tuple[float, float] = (-math.inf, math.inf),  # range of the values
) -> Metric:
    """Median over pairs in the worst row, every row with its own pairs: `numerics.families`.

    Parameters
    ----------
    rows : name → (pair,) values in their order over depth; empty rows make the question inapplicable, with `absent` as
        reason.
    reduce : np.max or np.min over rows.
    """
    return worst_of(
        rows, worst="largest" if reduce is np.max else "least", seed=seed, method=method, absent=absent, within=within
    )


def metrics(
    families: Mapping[str, FamilyTrack],
    matched: Sequence[MatchedPair],
    sides: Mapping[str, int],
    tracks: Mapping[str, np.ndarray],
    pca: scales.ScalePca | None,
    seed: int,
    experts: Mapping[str, Sequence[FamilyTrack]],
) -> dict[str, Metric]:
    """All metrics of the analysis.

    Parameters
    ----------
    families : each family over depth; experts : each of its experts, for a family that has them.
    sides : matrix family → its smaller side.
    tracks, pca : log-scales (layer,) of the families, and their standardised principal components.
    """

    def column(names: Iterable[str], field: str) -> dict[str, list[float | None]]:
        return {f: [getattr(pair, field) for pair in families[f].pairs] for f in names}

    matrices, gains = (list(filter(families.__contains__, names)) for names in (MATRICES, GAINS))
    by_role = {role: [pair.cos[role] for pair in matched] for role in (matched[0].cos if matched else ())}
    no_matrix, no_gain = "no matrix family was measured", "the model's norms have no gains"
    cases = {
        "worst_median_abs_cos": (
            _magnitudes(column(matrices, "cos")) | {f: mean_abs_cos(each) for f, each in experts.items()},
            np.max,
            "largest median |cos| over matrix families",
            no_matrix,
        ),
        "worst_median_abs_cos_matched": (
            _magnitudes(by_role),
            np.max,
            "largest median |mean cos of matched units|, each matrix scored on a matching found on the others",
            "no block has two matrices to match on each other",
        ),
        "worst_median_cos_sq": (
            column(matrices, "scalar_explained"),
            np.max,
            "largest median cos² over matrix families",
            no_matrix,
        ),
        "worst_gain_pearson": (
            column(gains, "pearson"),
            np.min,
            "least median Pearson r over gain families",
            no_gain,
        ),
        "worst_gain_z": (column(gains, "z"), np.min, "least median z over gain families", no_gain),
    }
    ranges = {"worst_gain_z": (-math.inf, math.inf), "worst_gain_pearson": (-1.0, 1.0)}
    found = {
        name: worst(rows, reduce, seed=seed, method=method, absent=absent, within=ranges.get(name, (0.0, 1.0)))
        for name, (rows, reduce, method, absent) in cases.items()
    }
    rank = _rank({family: families[family] for family in matrices}, sides, len(matched), seed)
    return found | {"worst_eff_rank_ratio": rank} | mode_metrics(tracks, pca, seed)


def _magnitudes(rows: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
    return {name: [None if value is None else abs(value) for value in row] for name, row in rows.items()}


def _rank(families: Mapping[str, FamilyTrack], sides: Mapping[str, int], pairs: int, seed: int) -> Metric:
    """The least median ratio of effective rank to its Haar null, over matrices of side SIDE or more."""
    large = {family: track for family, track in families.items() if sides[family] >= SIDE}
    side = {"side": min((sides[f] for f in large), default=max(sides.values(), default=0))}
    if not large:
        return Metric(value=None, n={"pairs": pairs} | side, reason=f"no family has a side of at least {SIDE}")
    ratios = {family: [pair.eff_rank_ratio for pair in track.pairs] for family, track in large.items()}
    method = "least median of eff_rank/Haar null over families"
    rank = worst(ratios, np.min, seed=seed, method=method, absent="", within=(0.0, math.inf))
    rank = replace(rank, n={**rank.n, **side})
    return but_for_identical(rank, {f: track.identical for f, track in large.items()}, pairs=pairs, why=ALIKE)


def but_for_identical(found: Metric, identical: Mapping[str, int], *, pairs: int, why: str) -> Metric:
    """A median over pairs, of which those that are identical up to rounding have no value.

    n counts them, where there are any. Where they are half of a row's pairs or more, the median pair is one of them:
    what the others have is not the row's answer.

    Parameters
    ----------
    identical : row → how many of its pairs are identical. why : what that means, for the reason.
    """
    if not any(identical.values()):
        return found
    counted = replace(found, n={**found.n, "identical": sum(identical.values())})
    alike = ", ".join(f"{name} in {n} of {pairs} pairs" for name, n in identical.items() if 2 * n >= pairs)
    return replace(counted, value=None, interval=None, where=None, reason=f"{why} ({alike})") if alike else counted


def mode_metrics(tracks: Mapping[str, np.ndarray], pca: scales.ScalePca | None, seed: int) -> dict[str, Metric]:
    layers = {"layers": len(next(iter(tracks.values())))} if tracks else {"layers": 0}
    if pca is None or pca.explained is None:
        missing = Metric(value=None, n=layers, reason="fewer than two families have a scale that varies over depth")
        return {"first_mode_standardised": missing, "first_mode_above_parallel": missing}
    raw = np.stack([tracks[f] for f in pca.families])  # (family, layer)

    def share(drawn: np.ndarray) -> np.ndarray:
        return scales.shares(raw[:, drawn].swapaxes(0, 1), True)[:, 0]

    first = pca.explained[0]
    interval = intervals.bootstrap(share, raw.shape[1], seed=seed, within=(0, 1))
    method = "share of the first mode, standardised tracks; bootstrap over layers, wider for their persistence"
    mode = {"first_mode_standardised": Metric(value=first, interval=interval, n=layers, method=method)}
    if pca.parallel_95 is None:
        return mode
    chance = pca.parallel_95[0]
    return mode | {
        "first_mode_above_parallel": Metric(
            value=first - chance,
            interval=interval and (interval[0] - chance, interval[1] - chance),
            n=layers,
            method=f"{method}, less the 95 % level of parallel analysis",
        ),
    }


def identities(pairs: Sequence[Mapping[str, FamilyPair]], sizes: Mapping[str, int]) -> dict[str, Metric]:
    """Worst discrepancy of each identity over all families and pairs."""
    compared = [(f, pair) for layer in pairs for f, pair in layer.items() if pair.cos is not None]

    def largest(error: Callable[[str, FamilyPair], float], which: list[tuple[str, FamilyPair]], method: str) -> Metric:
        if not which:
            return Metric(value=None, n={"cases": 0}, reason="no pair of layers has this number", method=method)
        value, where = max((error(f, pair), f) for f, pair in which)
        return Metric(value=value, n={"cases": len(which)}, where=where, method=method)

    return {
        "resid_direct": largest(
            lambda f, p: abs(p.resid_norm**2 - (2 - 2 * p.cos)),
            compared,
            "|resid² − (2 − 2cos)|, absolute (resid² is at most 4)",
        ),
        "scalar_resid": largest(
            lambda f, p: abs(p.scalar_resid**2 + p.scalar_explained - 1),
            compared,
            "|scalar_resid² + cos² − 1|, absolute",
        ),
        "pearson_z": largest(
            lambda f, p: abs((p.cos - p.null_cos) - p.pearson * p.null_sd * math.sqrt(sizes[f] - 1)),
            [(f, p) for f, p in compared if p.pearson is not None],
            "|(cos − null_cos) − pearson·√(N−1)·null_sd|, absolute (a cosine)",
        ),
        "spectrum_energy": largest(
            lambda f, p: p.spectrum_error,
            [(f, p) for f, p in compared if p.spectrum_error is not None],
            "|Σσ² − ‖Δ‖²| relative to ‖Δ‖²",
        ),
    }
