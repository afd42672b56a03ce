"""Association over layers of the size of massive tokens with the attention that goes to the first key.

Both readings of their being seen together. If the one makes the other, they rise and fall together over the layers:
Spearman's ρ of r_ℓ = max‖h‖/median‖h‖ with the mean sink share of the layer's heads, against rearrangements of
layers, trends removed from both. If they merely share the layers, since a norm hands every massive token on at one
size, then among the layers that have massive tokens the sink does not follow r_ℓ.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from analyses.numerics import permutations
from analyses.numerics.intervals import bootstrap
from analyses.numerics.pvalues import share_at_least
from analyses.records import Metric
from analyses.residual_stream.growth import folded
from analyses.residual_stream.ways import MASSIVE

PLANTS = 60  # planted associations: a power of 0.8 is right to 0.05
LEVEL = 0.05
PLANTED = 0.7  # correlation of the planted ranks: Spearman's ρ of about 0.7
LEAST_PLATEAU = 5  # layers with massive tokens, for a ρ among them
NAMES = ("massive_sink_rho", "massive_sink_p", "massive_sink_power", "plateau_rho")
CLIP = 1 - 1e-12


def sink_metrics(ratio: Sequence[float], sink: Sequence[float | None] | None, *, missing: str, seed: int) -> dict:
    """The metrics in NAMES.

    Parameters
    ----------
    ratio : (layer,) r_ℓ of each layer's input.
    sink : (layer,) mean sink share over heads; None for the reason `missing`.
    """
    n = {"layers": len(ratio)}
    if sink is None or None in sink:
        reason = missing or "a layer's heads have no sink share"
        return dict.fromkeys(NAMES, Metric(value=None, n=n, reason=reason, applies=sink is not None))
    x, y = (_ranks(np.asarray(values, float)) for values in (ratio, sink))
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        none = Metric(value=None, n=n, reason="one of the two is the same in all layers, or there are fewer than three")
        return dict.fromkeys(NAMES, none)
    rng = np.random.default_rng([seed, 11])
    orders = permutations.arrangements(len(x))
    noise = y[orders[[rng.integers(len(orders)) for _ in range(PLANTS)]]]  # (plant, layer)
    a, b = _standard(x), _standard(noise)
    planted = np.where(b.any(1), shift_p(x, PLANTED * a + np.sqrt(1 - PLANTED**2) * b), 1.0)

    return {
        "massive_sink_rho": Metric(
            value=_pearson(x, y),
            interval=_interval(x, y, seed),
            n=n,
            method="Spearman's ρ over layers of max‖h‖/median‖h‖ with the mean share of attention on key 0; bootstrap "
            "over layers of Fisher's z, wider for their persistence",
        ),
        "massive_sink_p": Metric(
            value=float(shift_p(x, y[None])[0]),
            n=n,
            method=f"share of {len(orders)} rearrangements of layers with as large a ρ, trends removed",
        ),
        "massive_sink_power": Metric(
            value=float((planted <= LEVEL).mean()),
            n=n,
            method=f"share of {PLANTS} planted associations of {PLANTED} with rearranged sinks that are seen",
        ),
        "plateau_rho": _plateau(np.asarray(ratio, float), np.asarray(sink, float), seed),
    }


def _plateau(ratio: np.ndarray, sink: np.ndarray, seed: int) -> Metric:
    """|ρ| among the layers that have massive tokens."""
    there = ratio >= MASSIVE
    n = {"layers": int(there.sum())}
    if not there.any():
        return Metric(value=None, n=n, reason="no layer has a massive token", applies=False)
    x, y = (_ranks(values[there]) for values in (ratio, sink))
    if len(x) < LEAST_PLATEAU or np.ptp(x) == 0 or np.ptp(y) == 0:
        reason = f"fewer than {LEAST_PLATEAU} layers have massive tokens, or all are alike"
        return Metric(value=None, n=n, reason=reason)
    rho, interval = _pearson(x, y), _interval(x, y, seed)
    if interval is not None:
        interval = folded(*interval)
    return Metric(
        value=abs(rho),
        interval=interval,
        n=n,
        method="|Spearman's ρ| over the layers with a massive token; bootstrap over them of Fisher's z",
    )


def shift_p(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(track,) share of rearrangements of layers under which tracks without trend correlate as much; one-sided.

    Parameters
    ----------
    x : (layer,). y : (track, layer), each against x. 1 where one of the two is a line over depth.
    """
    a, b = _standard(x), _standard(y)
    null = b[:, permutations.arrangements(len(x))] @ a / len(x)  # (track, arrangement)
    found = np.array([share_at_least(row, own) for row, own in zip(null, b @ a / len(x), strict=True)])
    return np.where(b.any(1) & a.any(), found, 1.0)


def _standard(x: np.ndarray) -> np.ndarray:
    """(…, layer) tracks without their line over depth, of unit variance; zero where nothing is left."""
    free = permutations.detrended(x[..., None])[..., 0]
    spread = free.std(-1, keepdims=True)
    left = spread > 1e-9 * np.maximum(x.std(-1, keepdims=True), 1e-300)
    return np.divide(free, spread, out=np.zeros_like(free), where=left)


def _interval(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, float] | None:
    def z(drawn: np.ndarray) -> np.ndarray:
        a, b = x[drawn], y[drawn]
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        scale = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
        r = np.divide((a * b).sum(1), scale, out=np.zeros(len(a)), where=scale > 0)
        return np.arctanh(np.clip(r, -CLIP, CLIP))

    found = bootstrap(z, len(x), seed=seed)
    return None if found is None else (float(np.tanh(found[0])), float(np.tanh(found[1])))


def _ranks(values: np.ndarray) -> np.ndarray:
    return stats.rankdata(values)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / np.sqrt((x @ x) * (y @ y)))
