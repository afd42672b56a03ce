"""A power law fitted to the tail of a sample by maximum likelihood.

x ≥ x_min has the density (α − 1)/x_min·(x/x_min)^−α, so that α = 1 + n/Σ ln(x/x_min) over the n values of the tail.
x_min is the value at which the tail is nearest to its law, in the largest distance between distribution functions
(Clauset, Shalizi & Newman 2009, SIAM Review 51, 661, equations 3.1 and 3.9), as the package `powerlaw` (Alstott,
Bullmore & Plenz 2014) has it.

How well the law describes the sample is told by samples made of it: below x_min values drawn from the sample's own,
above it from the law; each is fitted anew, x_min too. p is the share of them that lie as far from their law. The same
fits give α's interval.
"""

from dataclasses import dataclass

import numpy as np

DRAWS = 49  # samples made of the law: p is right to 0.07
CANDIDATES = 64  # values of x_min tried on each of them, evenly over the order
LEAST = 16  # values: of fewer no tail is fitted
LEVEL = 0.90
BLOCK = 1 << 14  # distances computed at a time: they stay in the cache, and the tails of a block begin close together


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """The law of one sample's tail."""

    alpha: float  # exponent of the density, above 1
    x_min: float  # where the tail begins
    distance: float  # largest distance of the distribution functions, 0 to 1
    tail: int  # values in it
    error: float  # (α − 1)/√n, the standard error at given x_min


def fit(sample: np.ndarray, *, candidates: int | None = None) -> PowerLaw | None:
    """The power law of a sample of positive values; None for fewer than LEAST, or where none differ.

    Parameters
    ----------
    candidates : values of x_min to try, evenly over the order; None for all.
    """
    x = np.sort(np.asarray(sample, float))
    x = x[x > 0]
    starts = np.unique(x, return_index=True)[1][:-1]  # of the last value there is no tail
    if len(x) < LEAST or not len(starts):
        return None
    if candidates is not None and len(starts) > candidates:
        starts = starts[np.linspace(0, len(starts) - 1, candidates).round().astype(int)]
    logs = np.log(x)
    sums = logs[::-1].cumsum()[::-1]
    count = len(x) - starts
    excess = sums[starts] - count * logs[starts]
    alpha = 1 + count / excess
    step = max(1, BLOCK // len(x))
    blocks = [slice(i, i + step) for i in range(0, len(starts), step)]
    distances = np.concatenate([_distances(logs, starts[block], alpha[block]) for block in blocks])
    best = int(distances.argmin())
    return PowerLaw(
        alpha=float(alpha[best]),
        x_min=float(x[starts[best]]),
        distance=float(distances[best]),
        tail=int(count[best]),
        error=float((alpha[best] - 1) / np.sqrt(count[best])),
    )


def _distances(logs: np.ndarray, starts: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(start,) largest |F(x) − share of the tail below x| over the tail's values."""
    logs, starts = logs[starts[0] :], starts - starts[0]  # no tail here has a value before the first start
    index = np.arange(len(logs))
    law = np.maximum(logs - logs[starts][:, None], 0)
    law *= (1 - alpha)[:, None]
    np.expm1(law, out=law)  # less the law's share below each value
    law += (index - starts[:, None]) / (len(logs) - starts)[:, None]
    np.abs(law, out=law)
    law[index < starts[:, None]] = 0
    return law.max(1)


def against_itself(sample: np.ndarray, law: PowerLaw, *, seed: int) -> tuple[float, tuple[float, float]]:
    """p of the law, and α's interval from samples made of it."""
    x = np.asarray(sample, float)
    x = x[x > 0]
    bulk = x[x < law.x_min]
    rng = np.random.default_rng(seed)
    alphas, farther = [], 0
    for _ in range(DRAWS):
        tail = int(rng.binomial(len(x), law.tail / len(x))) if len(bulk) else len(x)
        drawn = law.x_min * (1 - rng.random(tail)) ** (-1 / (law.alpha - 1))
        whole = np.concatenate([drawn, rng.choice(bulk, len(x) - tail)]) if len(bulk) else drawn
        if found := fit(whole, candidates=CANDIDATES):
            alphas.append(found.alpha)
            farther += found.distance >= law.distance
    if not alphas:
        return 1.0, (law.alpha, law.alpha)
    low, middle, high = np.quantile(alphas, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    interval = (law.alpha - max(0.0, middle - low), law.alpha + max(0.0, high - middle))
    return (1 + farther) / (1 + len(alphas)), (float(interval[0]), float(interval[1]))
