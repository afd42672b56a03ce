"""The fits of a track as the published script made and judged them.

Kept so that the old numbers can be checked: power, exponential and two-piece forms are lines of ln y, the linear form
and the other cooling laws least squares of y, and all are judged by R² in linear space, without a penalty for
parameters. The two-piece form takes segments of two layers, which a line fits perfectly; that is why it always won.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from analyses.schedule_fit.forms import EXPONENTIAL, HAJEK, HAJEK_C2, KIRKPATRICK, LINEAR, LINEAR_COOLING, POWER
from analyses.schedule_fit.two_pieces import fit_two_pieces, piece_parameters

LEAST_SEGMENT = 2  # layers on either side of the published break


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFit:
    """One form fitted and judged as the published script did."""

    params: Mapping[str, float]  # of the form's formula
    r2: float  # in linear space, ≤ 1
    fitted: np.ndarray  # (layer) the curve, in the track's unit


def r_squared(y: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """1 − Σ(y − ŷ)²/Σ(y − ȳ)² over the last axis; ≤ 1, negative where the mean does better.

    >>> float(r_squared(np.array([1.0, 2, 3]), np.array([1.0, 2, 4])))
    0.5
    """
    return 1 - np.square(y - fitted).sum(-1) / np.square(y - y.mean(-1, keepdims=True)).sum(-1)


def published_forms(y: np.ndarray) -> dict[str, PublishedFit]:
    """The four forms that the published script fitted to a (layer) track of norms, y > 0 and not constant."""
    ell = np.arange(len(y), dtype=float)
    linear, power, exponential = _line(ell, y), _line(np.log1p(ell), np.log(y)), _line(ell, np.log(y))
    params = (
        (LINEAR, {"a": linear[0], "b": linear[1]}),
        (POWER, {"a": np.exp(power[0]), "b": power[1]}),
        (EXPONENTIAL, {"a": np.exp(exponential[0]), "b": exponential[1]}),
    )
    fits = {form.name: _judged(y, p, form.evaluate(p, ell)) for form, p in params}
    pieces = fit_two_pieces(np.log(y)[None], least=LEAST_SEGMENT)
    return fits | {"two_piece": _judged(y, piece_parameters(pieces), np.exp(pieces.curve[0]))}


def published_laws(temperature: np.ndarray) -> dict[str, PublishedFit]:
    """The four cooling laws, fitted to a (layer) track of temperatures > 0 that is not constant."""
    ell = np.arange(len(temperature), dtype=float)
    rate = _line(ell, np.log(temperature))
    line = _line(ell, temperature)
    shift = _best_shift(temperature, ell)
    params = (
        (KIRKPATRICK, {"T0": np.exp(rate[0]), "alpha": np.exp(rate[1])}),
        (LINEAR_COOLING, {"T0": line[0], "Tf": line[0] + line[1] * ell[-1]}),
        (HAJEK, {"c": _amplitude(temperature, np.log(ell + 2))}),
        (HAJEK_C2, {"c": _amplitude(temperature, np.log(ell + shift)), "c2": shift}),
    )
    return {law.name: _judged(temperature, p, law.evaluate(p, ell)) for law, p in params}


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of the least-squares line."""
    slope = float((x - x.mean()) @ (y - y.mean()) / np.square(x - x.mean()).sum())
    return float(y.mean() - slope * x.mean()), slope


def _amplitude(temperature: np.ndarray, log: np.ndarray) -> float:
    """c of the least-squares fit c/log."""
    return float((temperature / log).sum() / np.square(1 / log).sum())


def _best_shift(temperature: np.ndarray, ell: np.ndarray) -> float:
    """c₂ of the least-squares fit c/ln(ℓ + c₂), searched over v = ln(c₂ − 1) from the best of a grid."""

    def loss(v: float) -> float:
        log = np.log1p(ell + np.exp(v))
        return float(np.square(temperature - _amplitude(temperature, log) / log).sum())

    low, high = HAJEK_C2.bounds[:, 0]
    grid = np.linspace(low, high, 73)
    best = int(np.argmin([loss(v) for v in grid]))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return 1 + float(
        np.exp(optimize.minimize_scalar(loss, bounds=bracket, method="bounded", options={"xatol": 1e-10}).x)
    )


def _judged(y: np.ndarray, params: Mapping[str, float], fitted: np.ndarray) -> PublishedFit:
    return PublishedFit(params={k: float(v) for k, v in params.items()}, r2=float(r_squared(y, fitted)), fitted=fitted)
