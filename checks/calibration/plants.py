"""How large a planted effect must be for a control to demand that it is seen.

Two sizes are stated in the controls, and neither comes from a model. A planted schedule explains so much of its
track's variance that the interval of R² clears the limit at every length and persistence that the intervals promise.
A planted part of a write is as long as the write; what that gives DS3's two statistics follows from how many
dimensions the write has by itself, r = (tr M)²/tr M² of its covariance M.
"""

import numpy as np
import torch

from analyses.delta_svd.covariances import alignment, covariance
from analyses.numerics.autocorrelation import noise
from analyses.numerics.families import member
from analyses.schedule_fit import chance
from checks.claims.compare import compare
from checks.controls.surrogates import COOLING, LIMIT, scattered
from checks.twins.planted import with_part_in

HIDDEN, LAYERS = 128, 24
LIMITS = {"|cos| of first directions": (0.3, (0, 1)), "alignment": (0.1, (-1, 1))}  # of DS3, and their ranges
WORDS = {"pass": "not seen", "inconclusive": "undecided", "fail": "seen"}


def seen_schedules(length: int, phi: float, r2: float, *, trials: int, seed: int) -> float:
    """Share of tracks about 0.9^ℓ, explained to `r2` exactly, whose interval of R² clears the limit."""
    rng = np.random.default_rng([seed, 5, length, int(100 * phi)])
    depth = np.arange(length)
    law, seen = np.log(COOLING) * depth, 0
    for trial, track in enumerate(noise(phi, (trials, length), rng)):
        deviations = track - np.polynomial.Polynomial.fit(depth, track, 1)(depth)
        logs = law + scattered(deviations, law, r2)
        seen += chance.r2_interval(logs, law, chance.EXPONENTIAL_LAW, seed=trial)[0] >= LIMIT
    return seen / trials


def spectrum(participation: float) -> np.ndarray:
    """(hidden,) eigenvalues i^−s of a write's covariance, s such that (Σλ)²/Σλ² is `participation`."""
    low, high, i = 0.0, 8.0, np.arange(1, HIDDEN + 1)
    for _ in range(60):
        middle = (low + high) / 2
        values = i**-middle
        low, high = (middle, high) if values.sum() ** 2 / np.square(values).sum() > participation else (low, middle)
    return values / values.sum()


def common_writes(participation: float, rank: int, *, response: float | None = None, seed: int) -> dict[str, tuple]:
    """DS3's statistics of unrelated layers with a common part planted: name → (median over pairs, status).

    Parameters
    ----------
    rank : of the common part, as long as the write; 0: none.
    response : the part is a random function of what the layer reads instead, which the layer's own matrix answers to
        this many times more strongly than a random one of its norm does.
    """
    rng = torch.Generator().manual_seed(seed)

    def frame(columns: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(HIDDEN, columns, generator=rng, dtype=torch.float64)).Q

    into, root = frame(max(rank, 1)), torch.tensor(spectrum(participation)).sqrt()
    groups = (slice(0, HIDDEN), slice(HIDDEN, 2 * HIDDEN))
    tops, covariances = [], []
    for _ in range(LAYERS):
        write = frame(HIDDEN) * root  # (hidden, token) with the covariance's root in its columns
        part = torch.zeros(HIDDEN, HIDDEN, dtype=torch.float64)
        if rank and response is None:
            write = with_part_in(write, into, frame(rank), size=1.0)
        elif rank:
            read = torch.randn(rank, HIDDEN, generator=rng, dtype=torch.float64)
            part = into @ read / torch.linalg.vector_norm(read) / response
        rows = torch.cat([write, part], 1).mT  # (token, hidden), the two parts on tokens of their own: uncorrelated
        tops.append(torch.linalg.svd(rows).Vh[0])
        covariances.append(covariance(rows, groups, dimensions=HIDDEN))
    pairs = range(LAYERS - 1)
    tracks = (
        [float((tops[i] @ tops[i + 1]).abs().clamp(max=1)) for i in pairs],
        [float(alignment(covariances[i], covariances[i + 1])[0]) for i in pairs],
    )
    found = {}
    for (name, (limit, within)), track in zip(LIMITS.items(), tracks, strict=True):
        one = member(track, seed=seed, families=1, within=within)
        found[name] = (one.value, compare(one.value, one.interval, "<=", limit, limit))
    return found
