"""Tracks with a planted schedule: what a claim about a schedule must find.

The planted law is a geometric cooling by a tenth a layer, 0.9^ℓ. About it each draw wanders in the shape in which the
model's own track does about its trend, shifted round and with a random sign, so that it is as persistent. How far it
wanders follows from the limit alone: the claims ask for a law that explains 0.9 of the variance, and of each planted
track the law explains 0.98, a fifth of the scatter that the limit allows. That margin is the least, in steps of 0.01,
at which the interval of R² clears the limit in four draws of five for persistences up to 0.8 at 12, 24 and 48 layers
(`docs/calibration.md`); a track that wanders as the model's own does, whatever its size, may be no schedule at all.
No model is needed, only the tracks in the records.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyses import delta_svd, records, schedule_fit
from analyses.null_residual import invariant, scales

Records = Mapping[str, Mapping[str, Any]]
Plant = Callable[[Sequence[float]], list[float]]  # a track → the planted one

DRAWS = 10  # four in five must be seen
LIMIT, MARGIN = 0.9, 0.08  # of R²
COOLING = 0.9  # per layer
NOTHING = 1e-12  # of a logarithm: rounding
LAW = (
    f"a planted cooling by {1 - COOLING:.0%} a layer that explains {LIMIT + MARGIN:.2f} of the variance, wandering as "
    "the model's own track does"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedTrack:
    """How some claims are judged on a planted track."""

    records: Callable[[Records, Plant, int], Records]  # (the model's records, plant, seed) → records to judge by
    law: str = LAW


def planted(track: Sequence[float], rng: np.random.Generator) -> list[float]:
    """0.9^ℓ times deviations shaped as the track's own from its trend, (layer,), positive; exact for an exact law.

    R² of a straight line through its logarithm is LIMIT + MARGIN.

    >>> rng = np.random.default_rng(0)
    >>> [round(x, 3) for x in planted([2.0, 1.0, 0.5, 0.25], rng)]
    [2.0, 1.8, 1.62, 1.458]
    """
    law = np.log(COOLING) * np.arange(len(track))
    shape = _off_its_line(np.log(track))
    drawn = _off_its_line(np.roll(shape, rng.integers(len(track))) * rng.choice([-1.0, 1.0]))
    return (track[0] * np.exp(law + scattered(drawn, law, LIMIT + MARGIN))).tolist()


def scattered(deviations: np.ndarray, law: np.ndarray, r2: float) -> np.ndarray:
    """Deviations from a law, scaled so that it explains `r2` of the variance of the two together.

    Parameters
    ----------
    deviations : (layer,) uncorrelated with the law; zero up to rounding: none are left.
    """
    size = deviations.std()
    if size <= NOTHING:
        return np.zeros_like(deviations)
    return deviations * law.std() * np.sqrt((1 - r2) / r2) / size


def _off_its_line(logs: np.ndarray) -> np.ndarray:
    depth = np.arange(len(logs))
    return logs - np.polynomial.Polynomial.fit(depth, logs, 1)(depth)


def _fit(seed: int, **tracks: Any) -> Records:
    temperature = tracks.pop("temperature", None)
    fit = schedule_fit.measure({}, temperature, model="planted", dtype="float64", seed=seed, **tracks)
    return {"schedule_fit": records.plain(fit)}


def _temperature(found: Records, plant: Plant, seed: int) -> Records:
    return _fit(seed, temperature=plant(found["attention_stats"]["temperature"]))


def _invariant_scales(found: Records, plant: Plant, seed: int) -> Records:
    """Without the power of the test: whether a draw passes does not rest on it."""
    asked = frozenset({"invariant_scale_r2", "invariant_scale_walk_p"})
    return _fit(seed, invariant_scales=_planted_scales(found, plant), asked=asked)


def _first_mode(found: Records, plant: Plant, seed: int) -> Records:
    logs, _ = scales.log_tracks(_planted_scales(found, plant))
    pca = scales.scale_pca(logs, seed=seed, standardise=True)
    return {"null_residual": {"metrics": records.plain(invariant.mode_metrics(logs, pca, seed))}}


def _planted_scales(found: Records, plant: Plant) -> dict[str, list[float]]:
    tracks = found["null_residual"]["invariant_scales"]
    return {name: plant(track) for name, track in tracks.items() if track and min(track) > 0}


def _write_sizes(found: Records, plant: Plant, seed: int) -> Records:
    return _fit(seed, sigma1=plant([layer["centred"]["singvals"][0] for layer in found["delta_svd"]["layers"]]))


def _relative_steps(found: Records, plant: Plant, seed: int) -> Records:
    steps = plant([layer["rel_step_mean"] for layer in found["delta_svd"]["layers"]])
    return {"delta_svd": {"metrics": {"rel_step_spearman": records.plain(delta_svd.trend(steps))}}}


TRACKS: Mapping[tuple[str, ...], PlantedTrack] = {
    ("NR4",): PlantedTrack(records=_first_mode, law=f"{LAW}, the same law for every scale"),
    ("SF1",): PlantedTrack(records=_invariant_scales),
    ("SF2", "SF3", "SF4"): PlantedTrack(records=_temperature),
    ("SF5",): PlantedTrack(records=_write_sizes),
    ("DS5",): PlantedTrack(records=_relative_steps),
}
"""Claims → how they are judged on a planted track."""


def planted_records(claims: tuple[str, ...], found: Records, *, seed: int, count: int = DRAWS) -> Iterator[Records]:
    """Records to judge these claims by, for `count` draws; `claims` is a key of TRACKS."""
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        yield TRACKS[claims].records(found, lambda track, rng=rng: planted(track, rng), seed)
