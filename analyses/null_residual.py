"""How alike are adjacent layers, and what would chance give?

For each adjacent pair of layers and each family: the cosine and the normalised residual, the
spectrum of the residual, and their chance levels (`pairs`); the same after matching neurons and
heads (`matching`); and the tracks of the families' scales over depth (`scales`). At most two
layers of one family are held at a time.

The published script compared gains with √2, which is no null for positive vectors; called
(mean resid − mean scalar_resid)/mean resid an explained share, though it is 0.293 for unrelated
layers and 0 for identical ones; left the spectra null; and crashed where a family was missing.
Its keys are kept with their meaning, and the corrected numbers stand beside them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from analyses import intervals, scales
from analyses.architectures import FAMILIES, GAINS, MATRICES
from analyses.checkpoint import Checkpoint
from analyses.matching import NEURONS, matched_cosines
from analyses.pairs import PAGE_SIDE, FamilyPair, Rotations, Unit, likeness, with_rank
from analyses.records import SCHEMA_VERSION, Metric

IMPROVE_NOTE = (
    "improve_frac is kept as published and is upside down: it is 1 − √((1+cos)/2), so 0.293 for "
    "unrelated layers and 0 for identical ones; scalar_explained (cos²) is what its text promised"
)
STORED_NOTE = (
    "cosines and residuals compare tensors entry by entry in the stored coordinates; reordering the neurons or "
    "heads of one layer changes them and not the model, which is why the matched comparison stands beside them"
)
SIDE = 32  # smallest side for the rank claim; below, the spectra have too few modes to be compared
SPECTRAL = ("*eff_rank*", "resid_spec_entropy", "spectrum_error")  # what only a matrix has; patterns of fields


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPair:
    """Layers L and L_next = L + 1, counted from 0."""

    L: int
    L_next: int
    families: dict[str, FamilyPair]  # families the model has
    matched: dict[str, float | None]  # gate, up, down, qk, vo → mean cosine of matched units, in [−1, 1]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NullResidual:
    """Record of the analysis; lists over layers and pairs run in layer order."""

    analysis: str = "null_residual"
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str = "float64"  # of all arithmetic; no forward pass
    pair_results: list[LayerPair]  # (pair,)
    summary: dict[str, FamilySummary]
    sides: dict[str, int]  # matrix family → its smaller side
    scales: dict[str, list[float] | None]  # family → ‖W_ℓ‖_F, (layer,); None where the model lacks it
    fam_used: list[str]  # rows of the loadings
    scale_pca_singvals: list[float] | None  # (mode,)
    scale_pca_loadings: list[list[float]] | None  # (family, mode)
    scale_pca_scores: list[list[float]] | None  # (layer, mode)
    scale_pca_explained: list[float] | None  # (mode,) share of variance
    scale_pca_parallel_95: list[float] | None  # (mode,) 95 % level of the share, tracks shuffled over layers
    scale_pca_walk_95: list[float] | None  # (mode,) 95 % level of the share, random walks of the tracks' own steps
    scale_pca_standardised: scales.ScalePca | None  # the same for tracks of unit variance
    metrics: dict[str, Metric]
    identities: dict[str, Metric]
    absent: dict[str, str]
    notes: list[str]


def measure(checkpoint: Checkpoint, *, seed: int, device: str) -> NullResidual:
    """Compare adjacent layers of a checkpoint, family by family, with their chance levels.

    Parameters
    ----------
    checkpoint : weights by family and layer.
    seed : of the entry shuffles, Haar draws, null tracks and bootstraps.
    device : torch device of the arithmetic; random draws are made on the CPU, so do not depend on it.

    Returns
    -------
    The record. What a tensor does not allow (all zero, constant, identical) is None with its reason.

    References
    ----------
    Page, Phys. Rev. Lett. 71, 1291 (1993). Horn, Psychometrika 30, 179 (1965). Mezzadri, Notices AMS 54 (2007).
    """
    walked = {
        f: follow(
            (checkpoint.weight(f, layer, device=device) for layer in range(checkpoint.shape.layers)),
            seed=(seed, FAMILIES.index(f)),
        )
        for f in checkpoint.families
    }
    matched = matched_cosines(checkpoint, device=device)
    pairs = [
        LayerPair(L=i, L_next=i + 1, families={f: w.pairs[i] for f, w in walked.items()}, matched=matched[i])
        for i in range(checkpoint.shape.layers - 1)
    ]
    norms = {f: walked[f].norms if f in walked else None for f in FAMILIES}
    tracks, no_track = scales.log_tracks(norms)
    raw = scales.scale_pca(tracks, seed=seed, standardise=False)
    standardised = scales.scale_pca(tracks, seed=seed, standardise=True)
    summary = {f: summarise(track.pairs) for f, track in walked.items()}
    sides = {f: min(checkpoint.shape.of(f)) for f in walked if f in MATRICES}
    absent = {f"scales.{f}": why for f, why in checkpoint.absent.items()} | _absent_pca(raw, standardised)
    for family, track in walked.items():
        absent |= _absent_pairs(family, track) | _absent_summary(family, summary[family], family in GAINS)
    if any(value is None for pair in pairs for value in pair.matched.values()):
        absent["pair_results.*.matched.*"] = "no neuron or head of one of the two layers is free of all-zero weights"
    return NullResidual(
        model=checkpoint.name,
        pair_results=pairs,
        summary=summary,
        sides=sides,
        scales=norms,
        fam_used=raw.families if raw else [],
        scale_pca_singvals=raw and raw.singvals,
        scale_pca_loadings=raw and raw.loadings,
        scale_pca_scores=raw and raw.scores,
        scale_pca_explained=raw and raw.explained,
        scale_pca_parallel_95=raw and raw.parallel_95,
        scale_pca_walk_95=raw and raw.walk_95,
        scale_pca_standardised=standardised,
        metrics=_metrics(pairs, sides, tracks, standardised, seed),
        identities=_identities(walked, {f: math.prod(checkpoint.shape.of(f)) for f in walked}),
        absent=absent,
        notes=[STORED_NOTE, IMPROVE_NOTE, *_notes(checkpoint, tracks, no_track)],
    )


# --- one family over all layers -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyTrack:
    """One family over depth."""

    norms: list[float]  # (layer,) ‖W_ℓ‖_F
    pairs: list[FamilyPair]  # (pair,)
    absent: dict[str, str]  # "pair.field" or "*.field" → why it is None


def follow(weights: Iterable[torch.Tensor], *, seed: Sequence[int]) -> FamilyTrack:
    """Compare each of a family's tensors with the next, holding two at a time.

    Parameters
    ----------
    weights : one tensor per layer, of one shape, float64; matrices (out, in) or gains (hidden,).
    seed : integers that seed this family's shuffles and Haar draws.
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    norms: list[float] = []
    pairs: list[FamilyPair] = []
    absent: dict[str, str] = {}
    rotations, before, unit_before = None, None, None
    for weight in weights:
        is_matrix = weight.ndim == 2
        norms.append(float(torch.linalg.vector_norm(weight)))
        unit = Unit.of(weight) if is_matrix and norms[-1] > 0 else None
        if is_matrix and rotations is None:
            rotations = Rotations.draw(*weight.shape, generator, device=str(weight.device))
        if before is not None:
            pair = FamilyPair()
            if norms[-2] > 0 and norms[-1] > 0:
                pair = likeness(before, weight)
                pair = with_rank(pair, unit_before, unit, rotations, generator) if is_matrix else pair
            absent |= {f"{len(pairs)}.{field}": why for field, why in _absences(pair, weight.shape).items()}
            pairs.append(pair)
        before, unit_before = weight, unit
    return FamilyTrack(norms=norms, pairs=pairs, absent=absent)


def _absences(pair: FamilyPair, shape: Sequence[int]) -> dict[str, str]:
    """Field pattern → why it is None, for one pair of tensors of this shape."""
    if pair.cos is None:
        return {"*": "one of the two tensors is all zero, so it has no direction"}
    absent = {}
    if pair.pearson is None:
        absent |= dict.fromkeys(("pearson", "z"), "all entries of one tensor are equal, so every matching of entries gives this cosine")
    if len(shape) == 1:
        absent |= dict.fromkeys(SPECTRAL, "a gain is a vector and has no spectrum")
    elif pair.resid_eff_rank is None:
        absent |= dict.fromkeys(SPECTRAL, "the two matrices are identical up to scale, so no residual is left")
    elif pair.eff_rank_page is None:
        absent["eff_rank_page"] = f"Page's entropy is right to about 1 % from side {PAGE_SIDE} on; the smaller side is {min(shape)}"
    return absent


def _by_family(pairs: Sequence[FamilyPair], field: str) -> list[float]:
    return [value for pair in pairs if (value := getattr(pair, field)) is not None]


def summarise(pairs: Sequence[FamilyPair]) -> FamilySummary:
    """Means and medians over the pairs where a number is defined; None where it is nowhere."""

    def over_pairs(statistic: Callable[[list[float]], float], field: str) -> float | None:
        values = _by_family(pairs, field)
        return float(statistic(values)) if values else None

    resid, scalar_resid = over_pairs(np.mean, "resid_norm"), over_pairs(np.mean, "scalar_resid")
    return FamilySummary(
        pairs=len(_by_family(pairs, "cos")),
        mean_cos=over_pairs(np.mean, "cos"),
        median_cos=over_pairs(np.median, "cos"),
        mean_resid=resid,
        mean_scalar_resid=scalar_resid,
        mean_null_resid=over_pairs(np.mean, "null_resid"),
        scalar_explained=over_pairs(np.mean, "scalar_explained"),
        improve_frac=(resid - scalar_resid) / resid if resid else None,
        median_pearson=over_pairs(np.median, "pearson"),
        median_z=over_pairs(np.median, "z"),
        median_eff_rank_ratio=over_pairs(np.median, "eff_rank_ratio"),
    )


def _absent_summary(family: str, summary: FamilySummary, is_gain: bool) -> dict[str, str]:
    spectrum = "a gain is a vector and has no spectrum" if is_gain else "no pair of layers leaves a residual"
    reasons = {
        "improve_frac": "no pair of layers leaves a residual to be improved on",
        "median_eff_rank_ratio": spectrum,
        "median_pearson": "constant in at least one layer of every pair",
        "median_z": "constant in at least one layer of every pair",
    }
    missing = [f.name for f in fields(summary) if getattr(summary, f.name) is None]
    return {f"summary.{family}.{name}": reasons.get(name, "all zero in at least one layer of every pair") for name in missing}


# --- metrics ------------------------------------------------------------------------------------


def worst(
    rows: Mapping[str, Sequence[float | None]], reduce: Callable[..., np.ndarray], *, seed: int, method: str, absent: str
) -> Metric:
    """Median over pairs in the worst row, with its interval over resampled pairs.

    A resample draws the same pairs in all rows and takes the worst row anew, so the interval knows
    that the worst was chosen. Only pairs that are defined in every row count.

    Parameters
    ----------
    rows : name → (pair,) values; empty rows make the question inapplicable, with `absent` as reason.
    reduce : np.max or np.min over rows.
    """
    if not rows:
        return Metric(value=None, reason=absent, applies=False, method=method)
    table = np.array(list(rows.values()), dtype=float)  # (row, pair); None becomes NaN
    defined = np.isfinite(table)
    table = table[:, defined.all(axis=0)]
    n = {"pairs": table.shape[1]}
    if not table.size:
        missing = [name for name, row in zip(rows, defined, strict=True) if not row.any()] or list(rows)
        return Metric(value=None, n=n, method=method, reason=f"undefined in {', '.join(missing)} for every pair of layers")
    medians = np.median(table, axis=1)
    value = float(reduce(medians))
    return Metric(
        value=value,
        interval=intervals.bootstrap(
            lambda drawn: reduce(np.median(table[:, drawn], axis=-1), axis=0), table.shape[1], seed=seed
        ),
        n=n,
        where=list(rows)[int(np.flatnonzero(medians == value)[0])],
        method=f"{method}; bootstrap over pairs of layers, worst family chosen anew in each resample",
    )


def _metrics(
    pairs: list[LayerPair], sides: Mapping[str, int], tracks: Mapping[str, np.ndarray], pca: scales.ScalePca | None, seed: int
) -> dict[str, Metric]:
    def column(families: Iterable[str], field: str) -> dict[str, list[float | None]]:
        return {f: [getattr(pair.families[f], field) for pair in pairs] for f in families}

    def magnitude(rows: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
        return {name: [None if v is None else abs(v) for v in row] for name, row in rows.items()}

    present = pairs[0].families
    matrices, gains = [f for f in MATRICES if f in present], [f for f in GAINS if f in present]
    large = [f for f in matrices if sides[f] >= SIDE]
    matched = {role: [pair.matched[role] for pair in pairs] for role in pairs[0].matched}
    rank = worst(
        column(large, "eff_rank_ratio"), np.min, seed=seed, method="least median of eff_rank/Haar null over families", absent="-"
    )
    side = {"side": min((sides[f] for f in large), default=max(sides.values()))}
    no_gain = "the model's norms have no gains"
    return {
        "worst_median_abs_cos": worst(
            magnitude(column(matrices, "cos")), np.max, seed=seed, method="largest median |cos| over matrix families", absent="-"
        ),
        "worst_median_abs_cos_matched": worst(
            magnitude(matched),
            np.max,
            seed=seed,
            method="largest median |mean cos of matched units|, each matrix scored on a matching found on the others",
            absent="no block has two matrices to match on each other",
        ),
        "worst_median_cos_sq": worst(
            column(matrices, "scalar_explained"), np.max, seed=seed, method="largest median cos² over matrix families", absent="-"
        ),
        "worst_eff_rank_ratio": replace(rank, n={**rank.n, **side})
        if large
        else Metric(value=None, n={"pairs": len(pairs)} | side, reason=f"no family has a side of at least {SIDE}"),
        "worst_gain_pearson": worst(
            column(gains, "pearson"), np.min, seed=seed, method="least median Pearson r over gain families", absent=no_gain
        ),
        "worst_gain_z": worst(
            column(gains, "z"), np.min, seed=seed, method="least median z over gain families", absent=no_gain
        ),
        **_mode_metrics(tracks, pca, seed),
    }


def _mode_metrics(tracks: Mapping[str, np.ndarray], pca: scales.ScalePca | None, seed: int) -> dict[str, Metric]:
    layers = {"layers": len(next(iter(tracks.values())))} if tracks else {"layers": 0}
    if pca is None or pca.explained is None:
        missing = Metric(value=None, n=layers, reason="fewer than two families have a scale that varies over depth")
        return {"first_mode_standardised": missing, "first_mode_above_parallel": missing}
    raw = np.stack([tracks[f] for f in pca.families])  # (family, layer)

    def share(drawn: np.ndarray) -> np.ndarray:
        return scales.shares(raw[:, drawn].swapaxes(0, 1), True)[:, 0]

    first, chance = pca.explained[0], pca.parallel_95[0]
    interval = intervals.bootstrap(share, raw.shape[1], seed=seed)
    method = "share of the first mode, standardised tracks; bootstrap over layers"
    return {
        "first_mode_standardised": Metric(value=first, interval=interval, n=layers, method=method),
        "first_mode_above_parallel": Metric(
            value=first - chance,
            interval=interval and (interval[0] - chance, interval[1] - chance),
            n=layers,
            method=f"{method}, less the 95 % level of parallel analysis",
        ),
    }


def _identities(tracks: Mapping[str, FamilyTrack], shapes: Mapping[str, int]) -> dict[str, Metric]:
    """Worst discrepancy of each identity over all families and pairs."""
    compared = [(f, pair) for f, track in tracks.items() for pair in track.pairs if pair.cos is not None]

    def largest(error: Callable[[str, FamilyPair], float], which: list[tuple[str, FamilyPair]], method: str) -> Metric:
        if not which:
            return Metric(value=None, n={"cases": 0}, reason="no pair of layers has this number", method=method)
        value, where = max((error(f, pair), f) for f, pair in which)
        return Metric(value=value, n={"cases": len(which)}, where=where, method=method)

    return {
        "resid_direct": largest(
            lambda f, p: abs(p.resid_norm**2 - (2 - 2 * p.cos)), compared, "|resid² − (2 − 2cos)|, absolute (resid² is at most 4)"
        ),
        "scalar_resid": largest(
            lambda f, p: abs(p.scalar_resid**2 + p.scalar_explained - 1), compared, "|scalar_resid² + cos² − 1|, absolute"
        ),
        "pearson_z": largest(
            lambda f, p: abs((p.cos - p.null_cos) - p.pearson * p.null_sd * math.sqrt(shapes[f] - 1)),
            [(f, p) for f, p in compared if p.pearson is not None],
            "|(cos − null_cos) − pearson·√(N−1)·null_sd|, absolute (a cosine)",
        ),
        "spectrum_energy": largest(
            lambda f, p: p.spectrum_error,
            [(f, p) for f, p in compared if p.spectrum_error is not None],
            "|Σσ² − ‖Δ‖²| relative to ‖Δ‖²",
        ),
    }


# --- reasons and notes --------------------------------------------------------------------------


def _absent_pairs(family: str, track: FamilyTrack) -> dict[str, str]:
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


def _absent_pca(raw: scales.ScalePca | None, standardised: scales.ScalePca | None) -> dict[str, str]:
    absent = {}
    if raw is None:
        absent["scale_pca_*"] = "fewer than two families have a scale above zero in every layer"
    elif raw.explained is None:
        absent |= dict.fromkeys(("scale_pca_explained", "scale_pca_*_95"), "no family's scale varies over depth")
    if standardised is None:
        absent["scale_pca_standardised"] = "fewer than two families have a scale that varies over depth"
    return absent


def _notes(checkpoint: Checkpoint, tracks: Mapping[str, np.ndarray], no_track: Mapping[str, str]) -> list[str]:
    notes = list(no_track.values())
    constant = [f for f, track in tracks.items() if scales.is_constant(track)]
    if constant:
        notes.append(f"left out of the standardised tracks, because the scale is the same in every layer: {', '.join(constant)}")
    if checkpoint.has_qk_bias:
        notes.append("queries and keys carry biases, which the matched head metric g = W_kᵀW_q omits")
    if checkpoint.shape.feed_forward > NEURONS:
        notes.append(
            f"of {checkpoint.shape.feed_forward} neurons per layer, the {NEURONS} with the longest gate (or up) rows "
            "are matched into all of the next layer's"
        )
    return notes
