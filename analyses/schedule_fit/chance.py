"""What chance gives a law over depth: its R² among walks and other surrogates of the track, its interval, its power.

The choice of the best form is repeated on every surrogate. Walks take the track's own steps in random order and with
random signs; autoregressions and orders of its values stand beside them, and the largest of the three shares counts.
The power is the share of tracks made of the fitted law and noise like its residuals that reach the 95 % level of that
null: a p-value above 0.05 says something only where it is high.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analyses.numerics import autocorrelation, intervals, surrogates
from analyses.numerics.families import worst_member
from analyses.numerics.pvalues import share_at_least
from analyses.records import Member, Metric
from analyses.schedule_fit.fitting import aicc, fit_all
from analyses.schedule_fit.forms import COOLING_LAWS, KIRKPATRICK, ONE_PIECE, Form
from analyses.schedule_fit.published import r_squared
from analyses.schedule_fit.screened import Screened, settle, settle_level
from analyses.schedule_fit.tracks import fit_track

DRAWS = 999  # of each null: p is then 0.001 at least, which survives Holm's correction among 50 claims
FIRST = 199  # of them, after which a p above GIVEN_UP is told as it is: who would pass with all has not been stopped
GIVEN_UP = 0.1
EXPONENTIAL_LAW = (KIRKPATRICK,)
PLENTY = 0.95  # of the null below which a planted law is not seen
TESTS = ("walk_p", "power")

Statistic = Callable[[np.ndarray], np.ndarray]  # (track, layer) ln y → (track)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """One statistic of one track against chance."""

    value: float
    p: float  # the largest of the three
    null: str  # which of surrogates.KINDS it comes from
    power: float | None  # share of laws planted with the track's own residual that reach the null's 95 % level
    draws: int  # of each null


def best_r2(logs: np.ndarray, forms: Sequence[Form], spread: np.ndarray | None = None) -> np.ndarray:
    """R² of ln y of the form with the least AICc, for each of (track, layer) tracks; the constant has R² 0.

    Spread: as `fitting.fit`.
    """
    fits = fit_all(logs, forms, spread)
    scores = np.stack([aicc(fits[form.name].rss, logs.shape[1], form.parameters) for form in forms])
    r2 = np.stack([r_squared(logs, fits[form.name].curve) for form in forms])
    return r2[np.nan_to_num(scores, nan=np.inf).argmin(0), np.arange(len(logs))]


def one_piece_r2(logs: np.ndarray, spread: np.ndarray | None = None) -> np.ndarray:
    """`best_r2` of the one-piece forms, each of which rises or falls all the way."""
    return best_r2(logs, ONE_PIECE, spread)


def fall(logs: np.ndarray) -> np.ndarray:
    """−Spearman's ρ with depth of (track, layer) tracks without ties."""
    ranks = stats.rankdata(logs, axis=1) - (logs.shape[1] + 1) / 2
    depth = np.arange(logs.shape[1]) - (logs.shape[1] - 1) / 2
    return -(ranks @ depth) / np.sqrt(np.square(ranks).sum(1) * (depth @ depth))


def against_chance(
    log: np.ndarray, curve: np.ndarray, statistic: Statistic, *, seed: int, power: bool = True
) -> Chance:
    """Place a statistic of (layer) ln y, the larger the more of a law, among its surrogates.

    Parameters
    ----------
    curve : (layer) the fitted law's ln y, to be planted.
    power : whether it is asked for; p is the same without.
    """
    rng = np.random.default_rng([seed, 3])
    found = _screened(log, curve, rng, power) if statistic is one_piece_r2 else _drawn(log, curve, statistic, rng)
    value, planted, nulls = found
    shares = {kind: share_at_least(null, value) for kind, null in nulls.items()}
    worst = max(shares, key=shares.__getitem__)
    level = max(float(np.quantile(null, PLENTY)) for null in nulls.values())
    return Chance(
        value=value,
        p=shares[worst],
        null=worst,
        power=float((planted > level).mean()) if power else None,
        draws=len(nulls[worst]),
    )


Values = tuple[float, np.ndarray, dict[str, np.ndarray]]
"""A statistic of the track itself, of planted laws, and of each kind of surrogate."""


def _drawn(log: np.ndarray, curve: np.ndarray, statistic: Statistic, rng: np.random.Generator) -> Values:
    """Of FIRST surrogates of each kind, and of DRAWS where these do not settle the p-value."""
    first = min(FIRST, DRAWS)
    batch = {kind: getattr(surrogates, kind)(log, first, rng) for kind in surrogates.KINDS}
    about = surrogates.about(curve, log - curve, first, rng)
    every = statistic(np.concatenate([log[None], *batch.values(), about]))
    value, *found = np.split(every, 1 + first * np.arange(1 + len(batch)))
    value, planted, nulls = float(value[0]), found.pop(), dict(zip(batch, found, strict=True))
    if DRAWS > first and _open(nulls, value):
        more = [getattr(surrogates, kind)(log, DRAWS - first, rng) for kind in surrogates.KINDS]
        found = np.split(statistic(np.concatenate(more)), len(more))
        nulls = {kind: np.concatenate([nulls[kind], null]) for kind, null in zip(nulls, found, strict=True)}
    return value, planted, nulls


def _open(nulls: Mapping[str, np.ndarray], value: float) -> bool:
    return max(share_at_least(null, value) for null in nulls.values()) <= GIVEN_UP


def _screened(log: np.ndarray, curve: np.ndarray, rng: np.random.Generator, power: bool) -> Values:
    """`_drawn` for the best form, which is fitted only where it can matter: a value may be a bound instead.

    Without `power` the planted laws, and what of the nulls only their level rests on, are not fitted at all.
    """
    first = min(FIRST, DRAWS)
    batch = {kind: getattr(surrogates, kind)(log, first, rng) for kind in surrogates.KINDS}
    own = np.concatenate([log[None], surrogates.about(curve, log - curve, first, rng)])
    spread = float(np.ptp(np.concatenate([*batch.values(), own]), axis=1).max())
    value, *planted = one_piece_r2(*((x if power else x[:1]) for x in (own, np.full(len(own), spread))))
    nulls = {kind: Screened.of(tracks, spread) for kind, tracks in batch.items()}
    settle(nulls, one_piece_r2, float(value))
    if DRAWS > first and _open({kind: null.values for kind, null in nulls.items()}, float(value)):
        batch = {kind: getattr(surrogates, kind)(log, DRAWS - first, rng) for kind in surrogates.KINDS}
        spread = float(np.ptp(np.concatenate([*batch.values()]), axis=1).max())
        nulls = {kind: null.joined(Screened.of(batch[kind], spread)) for kind, null in nulls.items()}
        settle(nulls, one_piece_r2, float(value))
    if power:
        settle_level(nulls, one_piece_r2, PLENTY)
    return float(value), np.array(planted), {kind: null.values for kind, null in nulls.items()}


def r2_intervals(
    log: np.ndarray, curve: np.ndarray, forms: Sequence[Form], *, seed: int, levels: Sequence[float]
) -> list[tuple[float, float] | None]:
    """Intervals of the best form's R²: the law refitted to tracks about it with noise of the residuals' persistence.

    The distances from their median are laid off from the estimate on the scale of Fisher's z of √R².
    """

    if intervals.are_left_out():
        return [None] * len(levels)

    def z(r2: np.ndarray) -> np.ndarray:
        return np.arctanh(np.sqrt(np.clip(r2, 0, 1 - 1e-12)))

    rng = np.random.default_rng([seed, 4])
    raised = autocorrelation.caution(len(log), trend=True)
    tracks = surrogates.about(curve, log - curve, min(FIRST, DRAWS), rng, raised=raised)
    value, *refitted = best_r2(np.concatenate([log[None], tracks]), forms)
    here, values = z(value), z(np.array(refitted))
    found = []
    for level in levels:
        low, middle, high = np.quantile(values, [(1 - level) / 2, 0.5, (1 + level) / 2])
        below, above = np.tanh(np.maximum([here - (middle - low), here + (high - middle)], 0)) ** 2
        found.append((min(float(value), float(below)), max(float(value), float(above))))
    return found


def r2_interval(log: np.ndarray, curve: np.ndarray, forms: Sequence[Form], *, seed: int) -> intervals.Interval | None:
    """`r2_intervals` at the usual level."""
    return r2_intervals(log, curve, forms, seed=seed, levels=(intervals.LEVEL,))[0]


def one_piece(
    tracks: Mapping[str, Sequence[float]], *, seed: int, absent: str, tests: Collection[str] = TESTS
) -> dict[str, Metric]:
    """Of several tracks, R² of the best one-piece form, its p and its power, each of the worst track.

    Parameters
    ----------
    tracks : name → (layer) y; none at all: not applicable, for the reason `absent`.
    tests : which of TESTS are asked for; a power only with its p.

    Returns
    -------
    "r2", and the tests.
    """
    methods = {
        "r2": "least R² of ln y over tracks, of the one-piece form with the least AICc; refitted tracks about it",
        "walk_p": f"largest share of walks, autoregressions or orders of a track, {DRAWS} at most, that fit as well",
        "power": "least share of planted laws with a track's own residual that reach the null's 95 % level",
    }
    methods = {name: how for name, how in methods.items() if name == "r2" or name in tests}
    if not tracks:
        return {name: Metric(value=None, reason=absent, applies=False, method=how) for name, how in methods.items()}
    members: dict[str, dict[str, Member]] = {name: {} for name in methods}
    for name, values in tracks.items():
        track, reasons = fit_track(values, ONE_PIECE, seed=seed, missing=absent, pieces=1)
        n = {"layers": len(values)}
        if track.status != "fitted":
            none = Member(value=None, n=n, reason=reasons["*"])
            members = {kind: found | {name: none} for kind, found in members.items()}
            continue
        log, curve = np.log(track.track), np.log(track.corrected[track.best_one_piece].fitted)
        levels = intervals.LEVEL, 1 - (1 - intervals.LEVEL) / len(tracks)
        own, joint = r2_intervals(log, curve, ONE_PIECE, seed=seed, levels=levels)
        value = float(best_r2(log[None], ONE_PIECE)[0])
        members["r2"][name] = Member(value=value, interval=own, bonferroni=joint, n=n)
        if tests:
            found = against_chance(log, curve, one_piece_r2, seed=seed, power="power" in tests)
            members["walk_p"][name] = Member(value=found.p, n=n)
            if "power" in tests:
                members["power"][name] = Member(value=found.power, n=n)
    return {
        name: worst_member(
            members[name], worst="largest" if name == "walk_p" else "least", method=methods[name], unit="layers"
        )
        for name in methods
    }


def exponential(
    values: Sequence[float | None] | None, *, seed: int, missing: str, tests: Collection[str] = TESTS
) -> dict[str, Metric]:
    """Of one track, the exponential law: R² of ln y, p, power, and the rate b of a·e^{bℓ} with its interval.

    Returns
    -------
    "r2" and "rate", and "walk_p" and "power" where one of them is asked for (`tests`); without a value where the track
    cannot be fitted, which `missing` explains if there is none.
    """
    track, reasons = fit_track(values, COOLING_LAWS, seed=seed, missing=missing)
    if track.status != "fitted":
        none = Metric(value=None, reason=reasons["*"], applies=values is not None)
        return dict.fromkeys(("r2", "walk_p", "power", "rate"), none)
    n = {"layers": len(track.track)}
    log = np.log(track.track)
    curve = np.log(track.corrected[KIRKPATRICK.name].fitted)
    value, interval = intervals.slope(log)
    metrics = {
        "r2": Metric(
            value=float(best_r2(log[None], EXPONENTIAL_LAW)[0]),
            interval=r2_interval(log, curve, EXPONENTIAL_LAW, seed=seed),
            n=n,
            method="R² of the line of ln y over depth; refitted lines with noise of the residuals' persistence",
        ),
        "rate": Metric(
            value=value,
            interval=interval,
            n=n,
            method="slope of ln y over depth; Student's interval under the residuals' persistence",
        ),
    }
    if not tests:
        return metrics
    found = against_chance(log, curve, lambda logs: best_r2(logs, EXPONENTIAL_LAW), seed=seed)
    return metrics | {
        "walk_p": Metric(
            value=found.p,
            n=n | {"draws": found.draws},
            where=found.null,
            method="share of walks, autoregressions or orders of the track, the largest, whose line fits as well",
        ),
        "power": Metric(
            value=found.power,
            n=n | {"draws": found.draws},
            method="share of planted exponential laws with the track's own residual that reach the null's 95 % level",
        ),
    }
