"""Association of the gained spectra with entropy: the same numbers as of the stored ones, with nulls of the right size.

The gained metric is what no exact map of the model moves. Over depth both variables first lose the line of their layer
means: two unrelated trends are else called related in 93 % of cases. Against what is left of the descriptors stand
surrogates of the entropy: layer means drawn anew with the persistence of its own, deviations of heads permuted inside
their layer; the choice of the best of seven descriptors is repeated. (Rearranging whole layers instead has a size of
8 to 13 % under strong drift, where 5 % is promised, and no p below 1/(2L).) Within layers, heads move with their
key/value group. The power is the share of planted associations, of the stated size and in the model's own layout, that
a test sees: a p-value above 0.05 says something only where that is high.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from analyses.head_geometry.correlation import correlations, layer_sums, pearson, standardise, varies
from analyses.head_geometry.regression import Regression
from analyses.head_geometry.table import Variables
from analyses.numerics import autocorrelation, intervals, permutations
from analyses.numerics.pvalues import power, share_at_least
from analyses.records import Metric

DRAWS = 999  # permutations of heads within layers, and surrogates: a p of 0.001 survives Holm's among 50 claims
FIRST = 199  # of the surrogates, after which a p above GIVEN_UP is told as it is
GIVEN_UP = 0.1
RAISED = 0.5  # standard errors that the surrogates' persistence is raised by: size 3 to 7 % from noise to walks
PLANT_DRAWS = 99  # surrogates and permutations for each planted association
BLOCK = 2**22  # entries of surrogates held at once
PLANTS = 60  # planted associations: a power of 0.8 is right to 0.05
PLANTED_R = 0.5  # pooled; within layers PLANTED_WITHIN
PLANTED_WITHIN = 0.3
NAMES = (
    "gained_best_abs_r",
    "gained_best_drift_p",
    "gained_best_power",
    "gained_within_r",
    "gained_within_p",
    "gained_within_power",
    "gained_regression_r2",
)


def metrics(
    found: Variables,
    regression: Callable[[], Regression | None],
    *,
    groups: int,
    seed: int,
    asked: Collection[str] = NAMES,
) -> dict[str, Metric]:
    """The metrics in `NAMES` that are asked for.

    Parameters
    ----------
    found : the gained spectra's descriptors and the outcome.
    regression : gives the regression on what is not collinear, or None where a predictor is missing.
    groups : key/value heads, each shared by as many query heads.
    """
    y, best = found.y, found.x[found.best]
    n = {"layers": len(found.layers), "heads": found.heads, "groups": groups}
    n |= {"degrees_of_freedom_within_layers": n["heads"] - n["layers"]}
    common = dict(n=n, where=found.best)
    whole = pearson(best, y)
    sign = float(np.sign(whole["pooled"]))
    x = found.x
    make = {
        "gained_best_abs_r": lambda: Metric(
            value=abs(whole["pooled"]),
            interval=r_interval(best, y, "pooled", sign, seed),
            method="largest |Pearson r| of seven descriptors of the gained metric; bootstrap over layers of Fisher's "
            "z, wider for their persistence",
            **common,
        ),
        "gained_best_drift_p": lambda: Metric(
            value=drift_test(list(x.values()), y, groups=groups, seed=seed),
            method=f"share of surrogates of the entropy, up to {DRAWS}, with as large a best of seven: layer means of "
            "its persistence, heads permuted inside layers, trends removed",
            **common,
        ),
        "gained_best_power": lambda: Metric(
            value=power(_planted_drift(x, y, found.best, groups, seed), PLANTS),
            method=f"share of {PLANTS} planted associations of r = {PLANTED_R} with rearranged entropies that are seen",
            **common,
        ),
        "gained_within_r": lambda: Metric(
            value=sign * whole["within"],
            interval=r_interval(best, y, "within", sign, seed),
            method="r of deviations from layer means, times the sign of the pooled r; bootstrap over layers of "
            "Fisher's z, wider for their persistence",
            **common,
        ),
        "gained_within_p": lambda: Metric(
            value=within_test(best, y, groups=groups, seed=seed),
            method=f"share of {DRAWS} permutations of a layer's key/value groups, and of heads inside them, with as "
            "large a |within-layer r|",
            **common,
        ),
        "gained_within_power": lambda: Metric(
            value=power(_planted_within(best, y, groups, seed), PLANTS),
            method=f"share of {PLANTS} planted within-layer associations of r = {PLANTED_WITHIN} with permuted "
            "entropies that are seen",
            **common,
        ),
        "gained_regression_r2": lambda: _regression(regression(), n),
    }
    if whole["within"] is None:
        reason = f"{found.best} or entropy is the same for all heads of each layer"
        missing = Metric(value=None, reason=reason, **common)
        make |= dict.fromkeys(("gained_within_r", "gained_within_p", "gained_within_power"), lambda: missing)
    return {name: make[name]() for name in NAMES if name in asked}


def drift_test(x: Sequence[np.ndarray], y: np.ndarray, *, groups: int, seed: int, draws: int = DRAWS) -> float:
    """p of the largest |pooled r| of several (layer, head) variables with y, all without their line over depth.

    A variable that is nothing but that line takes no part; 1 if y is, or all are. Where heads are missing, their gaps
    move with them and the pair counts for nothing.
    """
    return _drift_p(_without_trend(x), permutations.detrended(y), groups=groups, seed=seed, draws=draws)


def _without_trend(x: Sequence[np.ndarray]) -> np.ndarray:
    """(variable, layer, head) less their lines over depth, of those that are more."""
    free = [v for v in permutations.detrended(np.stack(x)) if varies(v) and v[np.isfinite(v)].std() > 0]
    return np.stack(free) if free else np.empty((0, *x[0].shape))


def _drift_p(table: np.ndarray, y: np.ndarray, *, groups: int, seed: int, draws: int) -> float:
    """`drift_test` of what has lost its trend."""
    if not len(table) or not varies(y):
        return 1.0
    rng = np.random.default_rng([seed, 8])
    observed = float(_largest(table, y[None])[0])
    first = min(FIRST, draws)
    null = _drifting(table, y, groups, first, rng)
    if draws > first and share_at_least(null, observed) <= GIVEN_UP:
        null = np.concatenate([null, _drifting(table, y, groups, draws - first, rng)])
    return share_at_least(null, observed)


def _drifting(x: np.ndarray, y: np.ndarray, groups: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draw) largest |pooled r| of x with surrogates of a detrended y."""
    layers, heads = y.shape
    means = np.nanmean(y, axis=1)
    table = autocorrelation.precision(layers, trend=True)
    phi = float(autocorrelation.estimate(means, trend=True, raised=RAISED))
    apart = np.abs(np.arange(layers)[:, None] - np.arange(layers))
    residual = means @ table.residual
    spread = np.sqrt(residual @ residual / np.trace(table.residual @ phi**apart))
    found = []
    for start in range(0, draws, block := max(1, BLOCK // y.size)):
        count = min(block, draws - start)
        drift = spread * autocorrelation.noise(phi, (count, layers), rng) @ table.residual
        order = permutations.group_permutations(heads, groups, layers, count, rng)
        own = permutations.rearranged(y - means[:, None], order)
        found.append(_largest(x, own + drift[..., None]))
    return np.concatenate(found)


def _largest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(draw) largest |r| of (variable, layer, head) with (draw, layer, head), of the heads known in both."""
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    known = (np.isfinite(y) & np.isfinite(x).all(0)).astype(float)
    x, y = np.nan_to_num(x), np.where(known > 0, y, 0)
    n = known.sum(1)
    cov = y @ x.T - (known @ x.T) * (y.sum(1) / n)[:, None]
    of_x = known @ np.square(x).T - np.square(known @ x.T) / n[:, None]
    of_y = np.square(y).sum(1) - np.square(y.sum(1)) / n
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nanmax(np.abs(cov) / np.sqrt(of_x * of_y[:, None]), axis=1)


def within_test(x: np.ndarray, y: np.ndarray, *, groups: int, seed: int, draws: int = DRAWS) -> float:
    """p of the |within-layer r| of two (layer, head) variables; key/value groups move as wholes, heads inside them.

    Where heads are missing, their values move with them and the pair counts for nothing.
    """
    x, y = standardise(x), standardise(y)
    order = permutations.group_permutations(y.shape[1], groups, len(y), draws, np.random.default_rng([seed, 5]))
    moved = permutations.rearranged(y, order)
    return share_at_least(np.abs(_within(x[None], moved)), abs(float(_within(x[None], y[None])[0])))


def _within(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(draw) r of deviations from layer means over the heads that both (draw, layer, head) variables know."""
    known = np.isfinite(x) & np.isfinite(y)
    if known.all():  # each keeps its own deviations in all draws
        x, y = ((v - v.mean(-1, keepdims=True)).reshape(len(v), -1) for v in (x, y))
    else:
        count = np.maximum(known.sum(-1, keepdims=True), 1)
        x, y = (np.where(known, v, 0) for v in (x, y))
        x, y = (np.where(known, v - v.sum(-1, keepdims=True) / count, 0).reshape(len(v), -1) for v in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(-1) / np.sqrt(np.square(x).sum(-1) * np.square(y).sum(-1))


def r_interval(x: np.ndarray, y: np.ndarray, part: str, sign: float, seed: int) -> intervals.Interval | None:
    """Of `sign` times a part of r ("pooled", "within"); bootstrap over layers of Fisher's z."""
    sums = layer_sums(x, y)

    def z(drawn: np.ndarray) -> np.ndarray:
        r = sign * correlations(intervals.times_drawn(drawn) @ sums)[part]
        return np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))

    found = intervals.bootstrap(z, len(sums), seed=seed)
    return None if found is None else (float(np.tanh(found[0])), float(np.tanh(found[1])))


def _planted_drift(
    x: Mapping[str, np.ndarray], y: np.ndarray, best: str, groups: int, seed: int
) -> Callable[[int], float]:
    """Trial → p where r·x + √(1 − r²)·(y of other layers) stands for y, both without their trend."""
    orders = permutations.arrangements(len(y))
    others = np.empty((PLANTS, *y.shape))
    for trial in range(PLANTS):
        rng = np.random.default_rng([seed, 6, trial])
        others[trial] = _permuted(y[orders[rng.integers(len(orders))]], groups, rng)
    a, b = map(standardise, _known_in_both(*map(permutations.detrended, (x[best], others))))
    planted = permutations.detrended(PLANTED_R * a + np.sqrt(1 - PLANTED_R**2) * b)
    table = _without_trend(list(x.values()))
    return lambda trial: _drift_p(table, planted[trial], groups=groups, seed=trial, draws=PLANT_DRAWS)


def _planted_within(x: np.ndarray, y: np.ndarray, groups: int, seed: int) -> Callable[[int], float]:
    """Trial → p of deviations from layer means, where r·x + √(1 − r²)·(y with heads permuted) stands for y."""
    others = np.empty((PLANTS, *y.shape))
    for trial in range(PLANTS):
        others[trial] = _permuted(y, groups, np.random.default_rng([seed, 7, trial]))
    x, others = _known_in_both(x, others)
    a, b = (standardise(v - np.nanmean(v, axis=-1, keepdims=True)) for v in (x, others))
    planted = PLANTED_WITHIN * a + np.sqrt(1 - PLANTED_WITHIN**2) * b
    return lambda trial: within_test(x[trial], planted[trial], groups=groups, seed=trial, draws=PLANT_DRAWS)


def _known_in_both(x: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(layer, head) x and (trial, layer, head) others as (trial, layer, head), with the gaps of both."""
    known = np.isfinite(x) & np.isfinite(others)
    return np.where(known, x, np.nan), np.where(known, others, np.nan)


def _permuted(y: np.ndarray, groups: int, rng: np.random.Generator) -> np.ndarray:
    return permutations.rearranged(y, permutations.group_permutations(y.shape[1], groups, len(y), 1, rng))[0]


def _regression(found: Regression | None, n: Mapping[str, float]) -> Metric:
    return Metric(
        value=None if found is None else found.r2_out_of_sample,
        interval=None if found is None else found.r2_out_of_sample_interval,
        n=n,
        where=None if found is None else ", ".join(found.predictors),
        method="1 − Σ(y − ŷ)²/Σ(y − ȳ)², each layer predicted from the others; bootstrap over layers, wider for their "
        "persistence",
        reason="a predictor is missing or the same for all heads" if found is None else None,
    )
