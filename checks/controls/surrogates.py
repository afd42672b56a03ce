"""Tracks without a schedule, on which a claim about a schedule ought to fail.

Two kinds of surrogate per track: its layers in random order, and random walks of the track's own
steps with random signs. A track that merely wanders passes many a test for a trend. No model is
needed, only the tracks in the records.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from analyses import delta_svd, records, schedule_fit
from analyses.null_residual import metrics, scales

Records = Mapping[str, Mapping[str, Any]]

SURROGATES = 99  # of each kind; the share that passes is then known to about 2 percentage points at 5 %


def _input_gain(found: Records, surrogate: Callable, seed: int) -> Records:
    return _fit({schedule_fit.GAIN: surrogate(found["null_residual"]["scales"][schedule_fit.GAIN])}, None, seed)


def _temperature(found: Records, surrogate: Callable, seed: int) -> Records:
    return _fit({}, surrogate(found["attention_stats"]["temperature"]), seed)


def _fit(gains: Mapping[str, Any], temperature: Any, seed: int) -> Records:
    fit = schedule_fit.measure(gains, temperature, model="surrogate", dtype="float64", seed=seed)
    return {"schedule_fit": records.plain(fit)}


def _all_scales(found: Records, surrogate: Callable, seed: int) -> Records:
    """Every family's track on its own: shuffling all by one order would leave their modes as they are."""
    tracks = {f: surrogate(t) for f, t in found["null_residual"]["scales"].items() if t and min(t) > 0}
    logs, _ = scales.log_tracks(tracks)
    pca = scales.scale_pca(logs, seed=seed, standardise=True)
    return {"null_residual": {"metrics": records.plain(metrics.mode_metrics(logs, pca, seed))}}


def _relative_steps(found: Records, surrogate: Callable, seed: int) -> Records:
    steps = [layer["rel_step_mean"] for layer in found["delta_svd"]["layers"]]
    return {"delta_svd": {"metrics": {"rel_step_spearman": records.plain(delta_svd.trend(surrogate(steps)))}}}


TRACKS: Mapping[tuple[str, ...], Callable[[Records, Callable, int], Records]] = {
    ("NR4",): _all_scales,
    ("SF1", "SF2"): _input_gain,
    ("SF3", "SF4"): _temperature,
    ("DS5",): _relative_steps,
}
"""Claims → how to judge them on a surrogate of their track: (records, track → track, seed) → records."""


def shuffled(track: list[float], rng: np.random.Generator) -> list[float]:
    return rng.permutation(track).tolist()


def walk(track: list[float], rng: np.random.Generator) -> list[float]:
    """A positive random walk from the track's first value: its own steps of the logarithm, signs and order random."""
    steps = rng.permutation(np.diff(np.log(track))) * rng.choice([-1.0, 1.0], size=len(track) - 1)
    return np.exp(np.log(track[0]) + np.concatenate([[0.0], np.cumsum(steps)])).tolist()


KINDS = {"order": shuffled, "walk": walk}


def surrogate_records(
    claims: tuple[str, ...], found: Records, *, seed: int, count: int = SURROGATES
) -> Iterator[tuple[str, Records]]:
    """(kind, records to judge these claims by) for `count` surrogates of each kind; `claims` is a key of TRACKS."""
    for number, (kind, make) in enumerate(KINDS.items()):
        for i in range(count):
            rng = np.random.default_rng([seed, number, i])
            yield kind, TRACKS[claims](found, lambda track, rng=rng, make=make: make(track, rng), seed)
