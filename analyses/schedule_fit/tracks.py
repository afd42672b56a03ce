"""All fits of one track over depth, the form that describes it best, and the numbers that say how well.

The corrected fits are least squares of ln y, compared by AICc with the constant competing. The two-piece form takes
part in the comparison, but is the best form only where its advantage is more than noise or drift gives.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyses.numerics import intervals
from analyses.schedule_fit.fitting import RESOLUTION, Fits, aicc, akaike_weights, fit_all, parameters
from analyses.schedule_fit.forms import COOLING_LAWS, Form
from analyses.schedule_fit.published import PublishedFit, published_forms, published_laws, r_squared
from analyses.schedule_fit.two_pieces import (
    LEAST_LAYERS,
    PARAMETERS,
    Calibration,
    calibrate,
    fit_two_pieces,
    piece_parameters,
)

# Range of ln y below which a track is constant. Norms of iid matrices spread by √(1/2N), more than this up to 1e11
# entries; rounding in float64 is 1e9 times smaller.
CONSTANT_TOLERANCE = 1e-6
LEAST_TRACK = 5  # layers: AICc of a form with three parameters needs one more than four
SIGNIFICANT = 0.05  # p of the two-piece form from which on it counts as the best form
EXACT = RESOLUTION**2  # RSS per layer below which residuals are rounding errors, and their order means nothing
TWO_PIECE = "two_piece"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedFit:
    """One form fitted by least squares of ln y."""

    formula: str
    params: Mapping[str, float]  # of the formula; layer indices count from 0
    n_parameters: int  # as AICc counts them, with the noise variance
    fitted: np.ndarray  # (layer) the curve, in the track's unit
    rss: float  # residual sum of squares of ln y
    aicc: float | None  # None where n ≤ n_parameters + 1
    weight: float | None  # Akaike weight among the forms with an AICc, 0 to 1
    r2_log: float  # of ln y; 0 to 1, below 0 only for a form that does not contain the constant
    r2_linear: float  # of y
    rmse_log: float  # √(RSS/n) of ln y
    largest_residual: float  # the residual of ln y farthest from 0, signed
    largest_residual_layer: int
    durbin_watson: float | None  # of ln y's residuals, 0 to 4: 2 if unrelated, below 1 if they wander


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One track and everything fitted to it."""

    status: str  # fitted | constant | absent
    track: list[float] | None  # (layer) y
    fits: Mapping[str, PublishedFit] | None  # form → as published
    corrected: Mapping[str, CorrectedFit] | None  # form → corrected; the constant competes
    best_form: str | None  # least AICc, two pieces only if significant; "constant" for a constant track
    best_one_piece: str | None  # least AICc among the others
    two_piece: Calibration | None  # None where that form is not fitted
    spearman: float | None  # rank correlation of y with depth
    spearman_interval: tuple[float, float] | None  # 90 %, wider for persistence; None below 5 layers


def fit_track(
    values: Sequence[float | None] | None, forms: tuple[Form, ...], *, seed: int, missing: str, pieces: int = 2
) -> tuple[Track, dict[str, str]]:
    """Fit `forms.ONE_PIECE` (and two pieces) or `forms.COOLING_LAWS` to one track.

    Parameters
    ----------
    values : (layer) y, or None, for which `missing` is the reason.
    pieces : 1 for who asks nothing of two pieces, whose fit is not cheap.

    Returns
    -------
    The track, and the reason for each of its nulls by path pattern ("*" for all of it). A track that is too short
    or not positive everywhere is "absent", one whose logarithm varies by less than `CONSTANT_TOLERANCE` "constant".
    """
    if unfit := _unfit(values, missing):
        complete = values is not None and None not in values
        return _empty("absent", np.asarray(values, float) if complete else None), {"*": unfit}
    y = np.asarray(values, float)
    if np.ptp(np.log(y)) <= CONSTANT_TOLERANCE:
        return _empty("constant", y), {"*": f"the track is constant to {CONSTANT_TOLERANCE:g}: nothing to explain"}

    logs = np.log(y)[None]
    fits = fit_all(logs, forms)
    candidates = {form.name: _candidate(y, form, fits[form.name]) for form in forms}
    known = {name: c.aicc for name, c in candidates.items() if c.aicc is not None}
    one_piece = min(known, key=known.__getitem__)
    calibration, reasons = None, {}
    if forms is COOLING_LAWS:
        reasons["two_piece"] = "a cooling law has one piece"
    elif pieces == 1:
        reasons["two_piece"] = "not asked for"
    elif len(y) < LEAST_LAYERS:
        reasons["two_piece"] = f"{len(y)} layers are too few to tell two pieces from one (needs {LEAST_LAYERS})"
    else:
        fitted, formula = fit_two_pieces(logs), "a₁·e^{b₁ℓ}, from the break on a₂·e^{b₂ℓ}"
        candidates[TWO_PIECE] = _judge(y, np.exp(fitted.curve[0]), formula, piece_parameters(fitted), PARAMETERS)
        calibration = calibrate(logs[0], fits[one_piece].curve[0], deviation(candidates[one_piece], len(y)), seed=seed)
        reasons["two_piece.*"] = "two pieces do not win, so nothing is simulated"
    weights = akaike_weights({name: c.aicc for name, c in candidates.items()})
    reasons["corrected.*.aicc"] = reasons["corrected.*.weight"] = f"AICc is not defined for {len(y)} layers"
    reasons["corrected.*.durbin_watson"] = "the fit is exact to rounding"
    rho, interval = intervals.spearman(np.arange(len(y)), y)
    track = Track(
        status="fitted",
        track=y.tolist(),
        fits=published_laws(y) if forms is COOLING_LAWS else published_forms(y),
        corrected={name: replace(c, weight=weights[name]) for name, c in candidates.items()},
        best_form=TWO_PIECE if calibration and calibration.p <= SIGNIFICANT else one_piece,
        best_one_piece=one_piece,
        two_piece=calibration,
        spearman=rho,
        spearman_interval=interval,
    )
    return track, reasons


def deviation(fit: CorrectedFit, layers: int) -> float:
    """Unbiased estimate of the noise in ln y about a one-piece form."""
    return math.sqrt(fit.rss / (layers - fit.n_parameters + 1))


def _candidate(y: np.ndarray, form: Form, fits: Fits) -> CorrectedFit:
    params = parameters(form, fits)
    fitted = form.evaluate(params, np.arange(len(y), dtype=float))
    return _judge(y, fitted, form.formula, params, form.parameters)


def _judge(y: np.ndarray, fitted: np.ndarray, formula: str, params: Mapping[str, float], count: int) -> CorrectedFit:
    """Every measure of a fit, from the curve that its reported parameters draw."""
    log = np.log(y)
    residual = log - np.log(fitted)
    rss = float(residual @ residual)
    score = float(aicc(np.array(rss), len(y), count))
    farthest = int(np.abs(residual).argmax())
    exact = rss <= EXACT * len(y)
    return CorrectedFit(
        formula=formula,
        params=params,
        n_parameters=count,
        fitted=fitted,
        rss=rss,
        aicc=score if math.isfinite(score) else None,
        weight=None,
        r2_log=float(r_squared(log, np.log(fitted))),
        r2_linear=float(r_squared(y, fitted)),
        rmse_log=math.sqrt(rss / len(y)),
        largest_residual=float(residual[farthest]),
        largest_residual_layer=farthest,
        durbin_watson=None if exact else float(np.square(np.diff(residual)).sum() / rss),
    )


def _unfit(values: Sequence[float | None] | None, missing: str) -> str | None:
    """Why a track cannot be fitted at all."""
    if values is None:
        return missing
    if any(v is None or not math.isfinite(v) for v in values):
        return f"layer {next(i for i, v in enumerate(values) if v is None or not math.isfinite(v))} has no value"
    if min(values, default=1) <= 0:
        return f"layer {int(np.argmin(values))} is not positive, and has no logarithm"
    if len(values) < LEAST_TRACK:
        return f"{len(values)} layers are too few to compare forms (needs {LEAST_TRACK})"
    return None


def _empty(status: str, y: np.ndarray | None) -> Track:
    return Track(
        status=status,
        track=None if y is None else y.tolist(),
        fits=None,
        corrected=None,
        best_form="constant" if status == "constant" else None,
        best_one_piece="constant" if status == "constant" else None,
        two_piece=None,
        spearman=None,
        spearman_interval=None,
    )
