"""What claims about the stream read, each in three ways, with intervals over depth and over prompts.

A number of one layer that was picked (the largest ratio, the least distance) has no interval over depth: it is of this
model's layers. Its interval is that of the prompts, by leaving groups of them out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analyses.numerics.intervals import Interval, bootstrap, medians, spearman, with_prompts
from analyses.records import Metric
from analyses.residual_stream.growth import GROWTH, STEPS, growth_metrics, step_metrics
from analyses.residual_stream.linearity import TOKENS_PER_DIRECTION as TOKENS_PER_DIRECTION
from analyses.residual_stream.sinks import NAMES as SINKS
from analyses.residual_stream.sinks import sink_metrics
from analyses.residual_stream.tracks import Tracks
from analyses.residual_stream.ways import asked_in, named

PROMPTS = "90 % over prompts, by the jackknife of groups of them"
BOTH = "90 %, over depth by the bootstrap and over prompts by the jackknife, joined"
TESTS = {
    "all": frozenset({"half_ratio_walk_p", "half_ratio_power"}),
    "without_first": frozenset({"norm_walk_p", "norm_power"}),
}
"""Way → the metrics in it that surrogates are drawn for: those that a claim reads."""
UNDEFINED = "undefined in a layer, or with a group of prompts left out"


def sink_shares(attention: Mapping[str, Any]) -> list[float | None] | None:
    """(layer,) mean over heads of the attention on key 0, from a record of attention_stats; None where it has none."""
    if attention["dynamic"] is None:
        return None
    rows = [layer["sink_share_per_head"] for layer in attention["dynamic"]]
    return [None if None in row else float(np.mean(row)) for row in rows]


def metrics(
    found: Mapping[str, Tracks],
    *,
    asked: frozenset[str] | None,
    sink_share: Sequence[float | None] | None,
    no_sinks: str,
    n: Mapping[str, float],
    first: int,
    seed: int,
) -> tuple[dict[str, Metric], dict[str, dict[str, float]]]:
    """Metrics by name, and of each way the weights of the forms of growth.

    Parameters
    ----------
    found : way → its tracks. n : tokens per dimension of the stream.
    asked : names of metrics; others are left out where nothing else is read off them. None: all.
    first : the state whose length the unrelated stack begins with.
    """
    result: dict[str, Metric] = {}
    forms: dict[str, dict[str, float]] = {}
    for way, tracks in found.items():
        wanted, tests = asked_in(way, asked), TESTS.get(way, frozenset())
        made = _of_one_track(tracks, n=n, seed=seed).items()
        own = {name: make() for name, make in made if wanted is None or name in wanted}
        forms[way] = {}
        if wanted is None or not wanted.isdisjoint(GROWTH):
            drawn = tests.intersection(GROWTH if wanted is None else wanted)
            growth, forms[way] = growth_metrics(tracks.norm[0], tracks.norm[1:], seed=seed, tests=bool(drawn))
            own |= growth
        if wanted is None or not wanted.isdisjoint(STEPS):
            drawn = tests.intersection(STEPS if wanted is None else wanted)
            length = dict(first=tracks.norm[0][first], writes=tracks.write)
            own |= step_metrics(tracks.step[0], tracks.step[1:], **length, seed=seed, tests=bool(drawn))
        if wanted is None or not wanted.isdisjoint(SINKS):
            own |= sink_metrics(tracks.ratio[0][: tracks.layers], sink_share, missing=no_sinks, seed=seed)
        result |= {named(name, way): metric for name, metric in own.items()}
    return result, forms


def _of_one_track(tracks: Tracks, *, n: Mapping[str, float], seed: int) -> dict[str, Callable[[], Metric]]:
    """Metric → what makes it, of the metrics of one track each."""
    layers = {"layers": tracks.layers}
    return {
        "massive_ratio": lambda: _picked(
            tracks.ratio, lambda t: t.max(1), layers, "largest over states of max‖h‖/median‖h‖", where=np.argmax
        ),
        "valley_ratio": lambda: _picked(
            tracks.entropy,
            valley,
            layers,
            "least entropy of the states in the middle third / mean of the first and the last state's",
        ),
        "least_distance": lambda: _picked(
            tracks.distance,
            lambda t: t.min(1),
            layers,
            "least mean angle of states a tenth of the depth apart, over π",
            where=np.argmin,
        ),
        "later_advantage": lambda: _picked(
            tracks.distance,
            later_advantage,
            layers,
            "least distance that starts in the first half − least that starts in the later one",
        ),
        "linear_r2": lambda: _median(
            tracks.linear, {**layers, **n}, "median over layers of held-out R² of δ from h", seed, within=(-np.inf, 1)
        ),
        "mean_cosine": lambda: _median(
            tracks.cosine, layers, "median over states of the mean cosine of two tokens", seed, within=(-1.0, 1.0)
        ),
        "cosine_trend": lambda: _trend(tracks.cosine[0], layers),
    }


def valley(entropy: np.ndarray) -> np.ndarray:
    """Least of the middle third over the mean of both ends, of (track, state) entropies; (track,).

    >>> valley(np.array([[1.0, 0.9, 0.2, 0.3, 0.8, 0.6]]))
    array([0.25])
    """
    third = entropy.shape[1] // 3
    if not third:
        return np.full(len(entropy), np.nan)
    middle = entropy[:, third : entropy.shape[1] - third]
    return middle.min(1) / ((entropy[:, 0] + entropy[:, -1]) / 2)


def later_advantage(distance: np.ndarray) -> np.ndarray:
    """Least of the first half − least of the later half, of (track, start) distances; (track,)."""
    half = distance.shape[1] // 2
    if not half:
        return np.full(len(distance), np.nan)
    return distance[:, :half].min(1) - distance[:, -half:].min(1)


def _picked(
    table: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    n: Mapping[str, float],
    what: str,
    *,
    where: Callable[[np.ndarray], Any] | None = None,
) -> Metric:
    """A statistic of (1 + group, unit) tracks, its interval from the groups."""
    if not table.shape[1] or not np.isfinite(table[0]).all():
        return Metric(value=None, n=n, method=what, reason=UNDEFINED)
    values = statistic(table)
    if not np.isfinite(values[0]):
        return Metric(value=None, n=n, method=what, reason="too few layers to divide")
    value, left_out = float(values[0]), values[1:]
    interval: Interval | None = None
    if len(left_out) > 1 and np.isfinite(left_out).all():
        interval = with_prompts(value, (value, value), left_out)
    return Metric(
        value=value,
        interval=interval,
        n=n,
        where=None if where is None else f"state {int(where(table[0]))}",
        method=f"{what}; {PROMPTS}",
    )


def _median(table: np.ndarray, n: Mapping[str, float], what: str, seed: int, *, within: tuple[float, float]) -> Metric:
    """The median over depth of (1 + group, unit) tracks, with both intervals joined."""
    track = table[0]
    if not np.isfinite(track).all():
        return Metric(value=None, n=n, method=what, reason=UNDEFINED)
    value = float(np.median(track))
    interval = bootstrap(lambda drawn: medians(track, drawn), len(track), seed=seed, within=within)
    left_out = np.median(table[1:], axis=1) if len(table) > 2 else np.empty(0)
    if interval is not None and len(left_out) and np.isfinite(left_out).all():
        low, high = with_prompts(value, interval, left_out)
        interval = max(low, within[0]), min(high, within[1])
    return Metric(value=value, interval=interval, n=n, method=f"{what}; {BOTH}")


def _trend(track: np.ndarray, n: Mapping[str, float]) -> Metric:
    if not np.isfinite(track).all():
        return Metric(value=None, n=n, reason=UNDEFINED)
    rho, interval = spearman(np.arange(len(track)), track)
    reason = "the track is constant or too short" if rho is None else None
    method = "Spearman's ρ of the mean cosine with depth; Fisher's z, wider for the ranks' persistence"
    return Metric(value=rho, interval=interval, n=n, method=method, reason=reason)
