"""How the length of states grows over depth, how large writes are beside them, and what an unrelated stack would give.

Two readings of each. The length of states grows exponentially, or as √(a + bℓ), as a sum of unrelated writes of equal
length does: forms of ln‖h‖ compared by AICc, with a line and a constant beside them. The second half writes less
relative to what is there; or it writes what equal and unrelated writes would: with w the length of a write and h₀ that
of the first state, ‖δ‖/‖h‖ = w/√(h₀² + ℓw²), which falls by itself.
"""

import math
from collections.abc import Sequence

import numpy as np

from analyses.numerics import autocorrelation, surrogates
from analyses.numerics.intervals import LEVEL, RESAMPLES, Interval, with_prompts
from analyses.numerics.intervals import slope as slope_of
from analyses.records import Metric
from analyses.schedule_fit import chance
from analyses.schedule_fit.fitting import aicc, akaike_weights, fit_all
from analyses.schedule_fit.forms import CONSTANT, EXPONENTIAL, LINEAR, ROOT

GROWTH = ("norm_exponential_weight", "norm_root_weight", "norm_growth", "norm_walk_p", "norm_power")
STEPS = ("half_ratio", "half_ratio_over_unrelated", "unrelated_departure", "half_ratio_walk_p", "half_ratio_power")
"""Names of the metrics of `growth_metrics` and of `step_metrics`."""
FORMS = (CONSTANT, EXPONENTIAL, LINEAR, ROOT)
SURE = 1e-9  # a weight nearer to 0 or 1 counts as that near: of a logarithm of odds
SHORT = "fewer than 8 states, or one of length zero"
LEAST = 8  # states: with fewer, AICc of three parameters chooses nothing


def weights(track: Sequence[float]) -> dict[str, float]:
    """Form → Akaike weight on a (state,) track of positive lengths; empty where it is too short or not positive."""
    return weights_of(np.asarray(track, float)[None])[0]


def weights_of(tracks: np.ndarray) -> list[dict[str, float]]:
    """`weights` of each of (track, state) tracks, fitted at once."""
    known = np.isfinite(tracks).all(1) & (tracks > 0).all(1)
    if tracks.shape[1] < LEAST or not known.any():
        return [{} for _ in tracks]
    logs = np.log(tracks[known])
    fits = fit_all(logs, FORMS, np.ptp(logs - logs.mean(1, keepdims=True), axis=1))
    scores = {form.name: aicc(fits[form.name].rss, logs.shape[1], form.parameters) for form in FORMS}
    found = iter([akaike_weights({name: float(score[i]) for name, score in scores.items()}) for i in range(len(logs))])
    return [next(found) if has else {} for has in known]


def growth_metrics(
    track: np.ndarray, without: np.ndarray, *, seed: int, tests: bool
) -> tuple[dict[str, Metric], dict[str, float]]:
    """Weights of the two readings, growth per layer, and p of the exponential among surrogates; and all weights.

    Parameters
    ----------
    track : (state,) median lengths. without : (group, state) the same with each group of prompts left out.
    tests : whether to draw surrogates.
    """
    n = {"layers": len(track) - 1}
    found, *left_out = weights_of(np.vstack([track, *without]))
    if not found:
        return dict.fromkeys(GROWTH, Metric(value=None, n=n, reason=SHORT)), found
    metrics = {}
    for name in ("exponential", "root"):
        metrics[f"norm_{name}_weight"] = Metric(
            value=found[name],
            interval=_of_odds(found[name], [other[name] for other in left_out if other]),
            n=n,
            where=max(found, key=found.__getitem__),
            method="Akaike weight among constant, a + bℓ, √(a + bℓ) and a·e^{bℓ}, of ln ‖h‖; prompts by the jackknife "
            "of its log odds",
        )
    rate, interval = slope_of(np.log(track))
    metrics["norm_growth"] = Metric(
        value=math.expm1(rate),
        interval=None if interval is None else tuple(math.expm1(end) for end in interval),
        n=n,
        method="e^slope − 1 of ln ‖h‖ over depth; Student's interval under the residuals' persistence",
    )
    if tests:
        law = chance.exponential(list(track), seed=seed, missing=SHORT)
        metrics |= {f"norm_{name}": law[name] for name in ("walk_p", "power")}
    return metrics, found


def _of_odds(value: float, left_out: Sequence[float]) -> Interval | None:
    """Interval of a weight over prompts, on the scale of log odds."""
    if len(left_out) < 2:
        return None

    def odds(weight: float) -> float:
        return math.log((weight + SURE) / (1 - weight + SURE))

    here = odds(value)
    ends = with_prompts(here, (here, here), [odds(other) for other in left_out])
    low, high = (1 / (1 + math.exp(-end)) for end in ends)
    return min(low, value), max(high, value)


# --- relative size of writes --------------------------------------------------------------------


def half_ratio(steps: np.ndarray) -> float:
    """Median over the second half of a (layer,) track over the median of the first; the middle of an odd one in none.

    >>> half_ratio(np.array([4.0, 2.0, 9.0, 1.0, 1.0]))
    0.3333333333333333
    """
    half = len(steps) // 2
    return float(np.median(steps[-half:]) / np.median(steps[:half]))


def unrelated_steps(first: float, writes: np.ndarray) -> np.ndarray:
    """(layer,) ‖δ‖/‖h‖ of unrelated writes of one length, the root mean square of these (layer,) lengths.

    >>> unrelated_steps(1.0, np.array([1.0, 1.0, 1.0])).round(3).tolist()
    [1.0, 0.707, 0.577]
    """
    square = float(np.square(writes).mean())
    return np.sqrt(square / (first**2 + square * np.arange(len(writes))))


def step_metrics(
    steps: np.ndarray, without: np.ndarray, *, first: float, writes: np.ndarray, seed: int, tests: bool
) -> dict[str, Metric]:
    """Ratio of halves, the same over that of unrelated writes, and p among surrogates of the track.

    Parameters
    ----------
    steps : (layer,) median ‖δ‖/‖h‖. without : (group, layer), with each group of prompts left out.
    first : median ‖h‖ of the first state. writes : (layer,) median ‖δ‖.
    """
    n = {"layers": len(steps)}
    if len(steps) < 4 or not (np.isfinite(steps).all() and (steps > 0).all() and first > 0):
        reason = "fewer than four layers, or one that writes nothing"
        return dict.fromkeys(STEPS, Metric(value=None, n=n, reason=reason))
    ratio = half_ratio(steps)
    interval = _interval(steps, without, seed)
    over = half_ratio(unrelated_steps(first, writes))
    how = "median ‖δ‖/‖h‖ over the second half's layers / the first half's; 90 %, by noise of its residuals' "
    how += "persistence about the track's line, and over prompts by the jackknife, joined on the log scale"
    found = {
        "half_ratio": Metric(value=ratio, interval=interval, n=n, method=how),
        "half_ratio_over_unrelated": Metric(
            value=ratio / over,
            interval=interval and (interval[0] / over, interval[1] / over),
            n=n,
            method=f"{how}; over the same of unrelated writes of equal length, {over:.3g}",
        ),
        "unrelated_departure": Metric(
            value=abs(math.log(ratio / over)),
            interval=interval and folded(math.log(interval[0] / over), math.log(interval[1] / over)),
            n=n,
            method="|ln| of the ratio of halves over that of unrelated writes of equal length",
        ),
    }
    if tests:
        logs = np.log(steps)
        line = np.polynomial.Polynomial.fit(np.arange(len(logs)), logs, 1)(np.arange(len(logs)))
        law = chance.against_chance(logs, line, _fall, seed=seed)
        found |= {
            "half_ratio_walk_p": Metric(
                value=law.p,
                n=n | {"draws": law.draws},
                where=law.null,
                method="share of walks, autoregressions or orders of the track, the largest, with as small a ratio",
            ),
            "half_ratio_power": Metric(
                value=law.power,
                n=n | {"draws": law.draws},
                method="share of the fitted lines with the track's own residual that reach the null's 95 % level",
            ),
        }
    return found


def folded(low: float, high: float) -> Interval:
    """The interval of |x| for one of x.

    >>> folded(-2.0, 1.0), folded(-2.0, -1.0)
    ((0.0, 2.0), (1.0, 2.0))
    """
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _fall(logs: np.ndarray) -> np.ndarray:
    """−ln of the ratio of halves of (track, layer) logarithms."""
    half = logs.shape[1] // 2
    return np.median(logs[:, :half], axis=1) - np.median(logs[:, -half:], axis=1)


def _interval(steps: np.ndarray, without: np.ndarray, seed: int) -> Interval:
    """About the track's own line, with noise of its residuals' persistence: the fall inside a half is no noise."""
    logs = np.log(steps)
    line = np.polynomial.Polynomial.fit(np.arange(len(logs)), logs, 1)(np.arange(len(logs)))
    rng = np.random.default_rng([seed, 13])
    raised = autocorrelation.caution(len(logs), trend=True)
    drawn = -_fall(surrogates.about(line, logs - line, RESAMPLES, rng, raised=raised))
    ends = np.quantile(drawn, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    value = -float(_fall(logs[None])[0])
    low, high = value - float(ends[1] - ends[0]), value + float(ends[2] - ends[1])
    if len(without) > 1 and np.isfinite(without).all() and (without > 0).all():
        low, high = with_prompts(value, (low, high), [-_fall(np.log(other)[None])[0] for other in without])
    return math.exp(low), math.exp(high)
