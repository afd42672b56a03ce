"""The published hypothesis of anisotropic annealing: a map that a phase's layers share, and each layer's own direction.

h_{ℓ+1} = h_ℓ + T_shared(h_ℓ) + γ_ℓ v_ℓ f(…): the layers of phase C write around one shared linear map, those of phase E
each its own direction. Five statistics: how much of what maps of their own explain does one map for all layers of
C explain, on unseen prompts (`shared_fit`); the share of one direction in what it leaves of a layer; how many
dimensions the stacked directions of C span (`stacks`); whether the first directions of E all differ; and how much
more C shares than E.

A run of layers is compared with other contiguous runs of the same length, since close layers are alike in any
drifting stack; the difference of two phases with that of any other two disjoint runs of their lengths. With few layers
there are few other runs, and p cannot be small: N runs give 1/(N + 1) at the least, so `n` counts them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analyses.delta_svd.shared_fit import LEAST_OWN, other_runs, remainders, shared_maps
from analyses.delta_svd.shared_map import TOKENS_PER_DIRECTION, Sums, in_one_basis
from analyses.delta_svd.stacks import (
    LEAST_LAYERS,
    OWN,
    PLANTED,
    SHARED,
    Stacks,
    Test,
    among,
    common,
    differences,
    jackknife,
    power,
)
from analyses.numerics.intervals import LEVEL, bootstrap, medians
from analyses.records import Metric

COMPARED = ("phase_difference_p", "phase_cos_difference_p")
OF_DIRECTIONS = ("phase_c_rank_ratio", "phase_e_rank_share", "phase_difference", "phase_cos_difference", *COMPARED)
"""Metrics of the layers' top directions, those that compare with other segmentations first."""

OF_MAPS = ("shared_map_r2_ratio", "shared_map_p", "shared_map_power", "remainder_top1")
"""Metrics of the maps that layers share, which need the normal equations of each layer's."""

MAP_METHOD = (
    "ridge on the pooled states' leading directions, states and writes centred over tokens, folds of whole prompts; "
    "layers weigh equally"
)
PLANTED_RATIO = 0.25  # half of the claim's limit, planted in a run's R² ratio where the test's power is asked
TOO_FEW = f"fewer than {TOKENS_PER_DIRECTION} tokens, or all in one fold"
SILENT = "a layer of the phase writes nothing that varies over tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annealing:
    """Tracks over depth; what layers share is asked within the published phases."""

    directions: int | None  # k, regressors of each map
    own_r2: list[float | None] | None  # [layer] of a map of its own, on unseen prompts
    shared_r2: list[float | None] | None  # [layer] of the map of its phase
    kept: list[float] | None  # [layer] share of the write's energy inside the directions that maps can reach
    remainder_top1: list[float | None] | None  # [layer] energy share of the first direction of what that map leaves
    remainder_top_singular: list[float] | None  # [layer] σ₁ of it, the published γ_ℓ of v_ℓ
    shared_runs: list[float]  # R² ratios of other runs as long as phase C
    phase_ranks: dict[str, float | None]  # phase → effective rank of stacked directions over chance


def annealing(
    sums: Sequence[Sums | None],
    directions: np.ndarray,
    phases: Mapping[str, range],
    *,
    dimensions: int,
    seed: int,
    asked: frozenset[str] | None = None,
) -> tuple[Annealing, dict[str, Metric], dict[str, str]]:
    """Statistics of the hypothesis, their metrics, and the reasons for what the record lacks.

    Parameters
    ----------
    sums : of every layer. directions : (layer, mode, hidden) of centred writes, zero rows where there are fewer.
    phases : name → its layers, possibly none. dimensions : that writes can have, hidden or one less.
    seed : of bootstraps, random frames and the sample of runs and segmentations.
    asked : names of metrics; other runs and segmentations are left out where none needs them. None: all.
    """
    silent = ~(directions[:, 0] != 0).any(1)  # (layer,)
    short = {name: _too_short(name, phases[name], silent) for name in (SHARED, OWN)}
    stacks = Stacks(directions, dimensions=dimensions, seed=seed)
    ranks = {
        name: stacks.ratio(phase) if len(phase) >= LEAST_LAYERS and not silent[list(phase)].any() else None
        for name, phase in (phases.items() if asked is None else ())
    }
    track, metrics = None, {}
    if asked is None or not asked.isdisjoint(OF_MAPS):
        track, metrics = _maps(sums, phases, short[SHARED], seed, compared=asked is None or "shared_map_p" in asked)
    if asked is None or not asked.isdisjoint(OF_DIRECTIONS):
        compared = asked is None or not asked.isdisjoint(COMPARED)
        metrics |= _directions(stacks, directions, phases, short, silent, seed, compared=compared)
    absent = {f"annealing.phase_ranks.{name}": "fewer than two layers, or one that writes nothing" for name in ranks}
    absent = {path: why for path, why in absent.items() if ranks[path.rpartition(".")[2]] is None}
    if track is None:
        nothing = ("directions", "own_r2", "shared_r2", "kept", "remainder_top1", "remainder_top_singular")
        absent |= {f"annealing.{name}": TOO_FEW for name in nothing}
        track = dict.fromkeys(nothing) | {"shared_runs": []}
    else:
        if None in track["remainder_top1"]:
            absent["annealing.remainder_top1.*"] = "the map leaves nothing of what the layer writes"
        if not np.isfinite(track["own_r2"]).all():
            absent |= dict.fromkeys(("annealing.own_r2.*", "annealing.shared_r2.*"), "the layer writes nothing")
    return Annealing(**track, phase_ranks=ranks), metrics, absent


def _too_short(name: str, phase: range, silent: np.ndarray) -> str | None:
    if len(phase) < LEAST_LAYERS:
        return f"phase {name} has {len(phase)} layers at this depth, {LEAST_LAYERS} are needed"
    return SILENT if silent[list(phase)].any() else None


def _maps(
    sums: Sequence[Sums | None], phases: Mapping[str, range], short: str | None, seed: int, *, compared: bool
) -> tuple[dict | None, dict[str, Metric]]:
    """Tracks of all layers' maps, and AN1 and AN2."""
    if any(found is None for found in sums):
        return None, {name: Metric(value=None, reason=TOO_FEW) for name in OF_MAPS}
    maps = in_one_basis(sums)
    runs = [phase for phase in phases.values() if len(phase)]
    others = other_runs(len(sums), phases[SHARED], seed) if compared and not short else []
    found = shared_maps(maps, [*runs, *others])
    found, ratios = found[: len(runs)], [one.ratio for one in found[len(runs) :]]
    left = remainders(maps, runs)
    track = {
        "directions": maps.state.shape[2],
        "own_r2": np.concatenate([one.own for one in found]).tolist(),
        "shared_r2": np.concatenate([one.shared for one in found]).tolist(),
        "kept": maps.kept.tolist(),
        "remainder_top1": [one.top1 for one in left],
        "remainder_top_singular": [one.top_singular for one in left],
        "shared_runs": [ratio for ratio in ratios if ratio is not None],
    }
    if short:
        return track, {name: Metric(value=None, reason=short) for name in OF_MAPS}
    phase, one = phases[SHARED], found[runs.index(phases[SHARED])]
    n = {"layers": len(phase), "tokens_per_direction": float(maps.counts[0].sum()) / maps.state.shape[2]}
    test = among(one.ratio, ratios)
    every = [phase, *others]
    seen = power([one.ratio, *ratios], common(every, every), PLANTED_RATIO)
    top1 = np.array([left[layer].top1 for layer in phase if left[layer].top1 is not None])
    weak = f"the layers' own maps explain less than {LEAST_OWN:.0%} of unseen prompts: there is nothing to share"
    ratio = Metric(
        value=one.ratio,
        interval=None if one.ratio is None else _ratio_interval(one.shared, one.own, seed),
        n=n,
        method=f"mean held-out R² of one map for phase {SHARED} over that of the layers' own; {MAP_METHOD}",
        reason=weak if one.ratio is None else None,
    )
    none = weak if one.ratio is None else "no other run of as many layers has maps that explain anything"
    p = Metric(
        value=test.p,
        n={"runs": test.others},
        method=f"share of contiguous runs as long as phase {SHARED} whose layers share as much",
        reason=none if test.p is None else None,
    )
    remainder = Metric(
        value=float(np.median(top1)) if top1.size else None,
        interval=bootstrap(lambda drawn: medians(top1, drawn), len(top1), seed=seed, track=top1, within=(0, 1)),
        n=n | {"layers": len(top1)},
        method=f"median over layers of phase {SHARED}: first direction's share of what the shared map leaves",
        reason=None if top1.size else "the map leaves nothing of any layer",
    )
    seeing = Metric(
        value=None if p.value is None else seen,
        n={"runs": test.others},
        method=f"share of runs in which a ratio larger by {PLANTED_RATIO} is seen, runs that overlap sharing it",
        reason=p.reason,
    )
    return track, dict(zip(OF_MAPS, (ratio, p, seeing, remainder), strict=True))


def _ratio_interval(shared: np.ndarray, own: np.ndarray, seed: int) -> tuple[float, float] | None:
    def ratios(drawn: np.ndarray) -> np.ndarray:
        below = own[drawn].mean(1)
        return np.where(below > 0, shared[drawn].mean(1) / np.where(below > 0, below, 1), np.nan)

    return bootstrap(ratios, len(own), seed=seed)


def _directions(
    stacks: Stacks,
    directions: np.ndarray,
    phases: Mapping[str, range],
    short: Mapping[str, str | None],
    silent: np.ndarray,
    seed: int,
    *,
    compared: bool,  # with other segmentations
) -> dict[str, Metric]:
    """AN3 to AN5."""
    shared, own = phases[SHARED], phases[OWN]
    frames = f"{directions.shape[1]} directions a layer"
    metrics = {
        "phase_c_rank_ratio": _of_run(
            stacks.ratio, shared, short[SHARED], f"effective rank of phase {SHARED}'s stacked directions over that of "
            f"random frames, {frames}; interval by the jackknife over layers"
        ),
        "phase_e_rank_share": _of_run(
            stacks.share, own, short[OWN], f"effective rank of phase {OWN}'s first centred directions over their "
            "number; interval by the jackknife over layers"
        ),
    }  # fmt: skip
    why = short[SHARED] or short[OWN] or (SILENT.replace("of the phase ", "") if silent.any() else None)
    names = ("phase_difference", "phase_cos_difference")
    if why:
        missing = Metric(value=None, reason=why)
        return metrics | {key: missing for name in names for key in (name, f"{name}_p", f"{name}_power")}
    top = directions[:, 0]
    tests = differences(stacks, np.abs(top @ top.T).clip(max=1), shared, own, seed=seed, compared=compared)
    methods = (
        f"AN3's ratio of phase {OWN} less that of phase {SHARED}",
        f"mean |cos| of first centred directions inside phase {SHARED} less inside {OWN}, at equal distance",
    )
    errors = [jackknife(stacks.ratio, phase) for phase in (shared, own)]
    joint = None if None in errors else float(np.hypot(*errors))
    shorter = min(len(shared), len(own))
    for name, test, method, error in zip(names, tests, methods, (joint, None), strict=True):
        metrics |= _difference(name, test, method, error, shorter, {"layers": len(shared) + len(own)})
    return metrics


def _of_run(statistic, run: range, short: str | None, method: str) -> Metric:
    n = {"layers": len(run)}
    if short:
        return Metric(value=None, reason=short, n=n, method=method)
    value = statistic(run)
    return Metric(value=value, interval=_around(value, jackknife(statistic, run), len(run)), n=n, method=method)


def _difference(
    name: str, test: Test, method: str, error: float | None, shorter: int, n: dict[str, float]
) -> dict[str, Metric]:
    others = {"segmentations": test.others}
    alone = None if test.p is not None else "no two other disjoint runs have these lengths"
    return {
        name: Metric(value=test.value, interval=_around(test.value, error, shorter), n=n | others, method=method),
        f"{name}_p": Metric(
            value=test.p,
            n=others,
            method=f"{method}, among disjoint runs of the same lengths elsewhere, one-sided",
            reason=alone,
        ),
        f"{name}_power": Metric(
            value=None if alone else test.power,
            n=others,
            method=f"share of such runs in which a difference of {PLANTED} is seen, runs that overlap sharing it",
            reason=alone,
        ),
    }


def _around(value: float, error: float | None, layers: int) -> tuple[float, float] | None:
    """Student's interval of a jackknife over so many layers."""
    if error is None:
        return None
    half = float(stats.t.ppf((1 + LEVEL) / 2, layers - 1)) * error
    return value - half, value + half
