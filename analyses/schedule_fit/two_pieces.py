"""The two-piece exponential fitted to a track over depth, and the chance level of its advantage.

The two-piece form is an exponential before and another after one break, free to jump: on the log scale, two straight
lines. Its advantage is the AICc of the best one-piece form minus its own. AICc does not know that the break was
searched for, nor that a track drifts: random walks prefer two pieces in nine cases of ten. So the advantage
is calibrated by parametric bootstrap under two nulls, each put through the whole choice again:

    white noise    independent noise about the best one-piece form, with its residual spread
    random walk    independent Gaussian steps with the track's own root-mean-square step, no trend

and the larger of the two p-values counts. Davies (1987), Biometrika 74, 33, on a parameter that exists only under the
alternative. Axes: track, segment, layer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyses.schedule_fit.fitting import aicc, fit_all
from analyses.schedule_fit.forms import OFFSET_POWER, ONE_PIECE, Form

PARAMETERS = 6  # two lines, the break, the noise variance
LEAST_SEGMENT = 4  # layers a side: a line through two points fits anything
LEAST_LAYERS = 16  # below it AICc's correction for six parameters outweighs what two pieces could ever gain
RESAMPLES = 300  # of each null; p = 0.05 then has a standard error of 0.013


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPieces:
    """The two-piece form fitted to a batch of tracks."""

    break_layer: np.ndarray  # (track) first layer of the second piece
    rss: np.ndarray  # (track) residual sum of squares of ln y
    curve: np.ndarray  # (track, layer) fitted ln y
    lines: np.ndarray  # (track, segment, 2) intercept at layer 0 and slope of ln y


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the two-piece form's advantage is worth."""

    advantage: float  # AICc of the best one-piece form − AICc of two pieces; positive where two pieces win
    p: float  # the larger of the two below; 1 where two pieces do not win
    p_white_noise: float | None  # None where two pieces do not win: then nothing is simulated
    p_random_walk: float | None
    null: str | None  # the null that p comes from
    resamples: int  # simulated tracks of each null


def fit_two_pieces(logs: np.ndarray, *, least: int = LEAST_SEGMENT) -> TwoPieces:
    """Least squares of ln y by two lines, over all breaks that leave `least` layers on each side.

    Parameters
    ----------
    logs : (track, layer) float64, ln y, with at least 2·least layers.

    Returns
    -------
    TwoPieces; the first of equally good breaks.
    """
    n = logs.shape[1]
    breaks = np.arange(least, n - least + 1)
    centred = logs - logs.mean(1, keepdims=True)  # else the prefix sums cancel
    before = _segment_rss(centred)[:, breaks]
    after = _segment_rss(centred[:, ::-1])[:, n - breaks]
    break_layer = breaks[(before + after).argmin(1)]

    # Prefix sums are right to eps·Σy² only; the lines themselves are fitted again about their means.
    ell = np.arange(n, dtype=float)
    first = ell < break_layer[:, None]  # (track, layer)
    inside = np.stack([first, ~first], 1).astype(float)  # (track, segment, layer)
    count = inside.sum(-1, keepdims=True)
    x = (ell - (inside * ell).sum(-1, keepdims=True) / count) * inside
    level = (inside * logs[:, None]).sum(-1, keepdims=True) / count
    slope = (x * (logs[:, None] - level)).sum(-1, keepdims=True) / np.square(x).sum(-1, keepdims=True)
    curve = ((level + slope * x) * inside).sum(1)
    intercept = level - slope * (inside * ell).sum(-1, keepdims=True) / count
    return TwoPieces(
        break_layer=break_layer,
        rss=np.square(logs - curve).sum(1),
        curve=curve,
        lines=np.concatenate([intercept, slope], -1),
    )


def piece_parameters(pieces: TwoPieces) -> dict[str, float]:
    """Of the first track: y = a1·e^{b1·ℓ} before `break_layer`, a2·e^{b2·ℓ} from it on; ℓ counts from 0."""
    (log_a1, b1), (log_a2, b2) = pieces.lines[0].tolist()
    break_layer = float(pieces.break_layer[0])
    return {"break_layer": break_layer, "a1": math.exp(log_a1), "b1": b1, "a2": math.exp(log_a2), "b2": b2}


def advantage(logs: np.ndarray, forms: Sequence[Form] = ONE_PIECE) -> np.ndarray:
    """AICc of the best of `forms` minus that of two pieces, for each of a batch of tracks."""
    fits = fit_all(logs, forms)
    one_piece = [aicc(fits[form.name].rss, logs.shape[1], form.parameters) for form in forms]
    return np.min(one_piece, axis=0) - aicc(fit_two_pieces(logs).rss, logs.shape[1], PARAMETERS)


def share_at_least(logs: np.ndarray, observed: float) -> float:
    """(1 + number of tracks with at least that advantage)/(1 + number of tracks)."""
    # More forms can only lower the advantage, so the costly offset power is fitted where it can still decide.
    left = logs[advantage(logs, [form for form in ONE_PIECE if form is not OFFSET_POWER]) >= observed]
    return (1 + (int((advantage(left) >= observed).sum()) if len(left) else 0)) / (1 + len(logs))


def white_noise_tracks(curve: np.ndarray, deviation: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """(track, layer): a fitted curve of ln y with independent Gaussian noise."""
    return curve + deviation * rng.standard_normal((count, len(curve)))


def random_walk_tracks(log: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(track, layer): random walks of ln y from the track's start, with its own root-mean-square step."""
    step = math.sqrt(float(np.square(np.diff(log)).mean()))
    steps = step * rng.standard_normal((count, len(log)))
    steps[:, 0] = 0
    return log[0] + steps.cumsum(1)


def calibrate(
    log: np.ndarray, curve: np.ndarray, deviation: float, *, seed: int, resamples: int = RESAMPLES
) -> Calibration:
    """How often chance alone gives two pieces as large an advantage.

    Parameters
    ----------
    log : (layer) ln y, at least `LEAST_LAYERS` of them.
    curve : (layer) best one-piece form's ln y.
    deviation : its residual standard deviation, an unbiased estimate.

    Returns
    -------
    Calibration with p = (1 + number at least as large)/(1 + resamples), for the worse null.
    """
    observed = float(advantage(log[None])[0])
    if observed <= 0:
        return Calibration(
            advantage=observed, p=1.0, p_white_noise=None, p_random_walk=None, null=None, resamples=resamples
        )
    nulls: Mapping[str, np.ndarray] = {
        "white noise": white_noise_tracks(curve, deviation, resamples, np.random.default_rng([seed, 0])),
        "random walk": random_walk_tracks(log, resamples, np.random.default_rng([seed, 1])),
    }
    p = {name: share_at_least(tracks, observed) for name, tracks in nulls.items()}
    worse = max(p, key=p.__getitem__)
    return Calibration(
        advantage=observed,
        p=p[worse],
        p_white_noise=p["white noise"],
        p_random_walk=p["random walk"],
        null=worse,
        resamples=resamples,
    )


def _segment_rss(logs: np.ndarray) -> np.ndarray:
    """(track, L+1): residual sum of the line through the first n layers, for every n; 0 for n < 3."""
    n = np.arange(1, logs.shape[1] + 1, dtype=float)
    ell = n - 1
    y, xy, yy = logs.cumsum(1), (logs * ell).cumsum(1), np.square(logs).cumsum(1)
    x = ell * n / 2
    spread = np.maximum(n * (np.square(n) - 1) / 12, 1)  # Σ(x − x̄)²; 0 for one layer, where the slope is free
    rss = yy - np.square(y) / n - np.square(xy - x * y / n) / spread
    return np.pad(np.where(n < 3, 0, np.maximum(rss, 0)), ((0, 0), (1, 0)))
