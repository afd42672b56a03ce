"""Least-squares fits of a form to positive tracks over depth, and the criterion by which forms are compared.

On the log scale ln y = s + f_θ(ℓ) + noise. The scale's best value is the mean of ln y − f, and what remains is a search
over the shape θ alone (variable projection, exact because s enters as a constant): Levenberg–Marquardt on centred
curves from the best points of a grid. Where f is linear in θ the first, undamped step is the exact solution.

All forms are fitted on this one scale, so that their residual sums can be compared: the published script fitted some
in log space and judged them in linear space. A batch of tracks is fitted at once, because a bootstrap has hundreds.

Axes: track, parameter, layer. AICc: Hurvich & Tsai (1989), Biometrika 76, 297; weights: Burnham & Anderson (2002).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyses.schedule_fit.forms import Form

RESOLUTION = 1e-12  # relative; norms summed in float64 over up to 1e9 entries are right to about this
ITERATIONS = 60  # Levenberg–Marquardt; 10 to 20 are usual
CONVERGED = 1e-10  # gain in the residual sum, relative to the centred track's, that ends the search


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """One form fitted to a batch of tracks."""

    theta: np.ndarray  # (track, parameter) shape parameters
    rss: np.ndarray  # (track) residual sum of squares of ln y
    curve: np.ndarray  # (track, layer) fitted ln y


def fit(
    form: Form, logs: np.ndarray, inner: Mapping[str, Fits] | None = None, spread: np.ndarray | None = None
) -> Fits:
    """Least squares of ln y, for a batch of tracks.

    Parameters
    ----------
    form : what to fit.
    logs : (track, layer) float64, ln y.
    inner : fits of forms that `form` contains, if at hand; their best joins the starting points, so that
        a richer form is never worse than a poorer one.
    spread : (track) range of ln y from which the grid is made, that of the batch a track was drawn in; None for the
        largest range of these.

    Returns
    -------
    Fits. A search that ends at a bound of its form is a valid, bounded answer.
    """
    target = logs - logs.mean(1, keepdims=True)
    spread = np.full(len(logs), np.ptp(target, axis=1).max(initial=0.0)) if spread is None else spread
    starts = _starts(form, target, inner or {}, spread)
    # All starts of all tracks are one search: a pass costs less than what it takes to call it.
    searched = _search(form, np.tile(target, (len(starts), 1)), np.concatenate(starts))
    theta, rss, curve = (results.reshape(len(starts), *target.shape[:1], *results.shape[1:]) for results in searched)
    best = rss.argmin(0), np.arange(len(logs))  # (track)
    theta, rss, curve = theta[best], rss[best], curve[best]
    return Fits(theta=theta, rss=rss, curve=curve + logs.mean(1, keepdims=True))


def fit_all(logs: np.ndarray, forms: Sequence[Form], spread: np.ndarray | None = None) -> dict[str, Fits]:
    """Every form on the same tracks, each starting also from those before it; name → `Fits`. Spread: as `fit`."""
    fits: dict[str, Fits] = {}
    for form in forms:
        fits[form.name] = fit(form, logs, fits, spread)
    return fits


def parameters(form: Form, fits: Fits, track: int = 0) -> dict[str, float]:
    """The formula's parameters of one fitted track, in its own unit."""
    layers = fits.curve.shape[1]
    shape = form.shape(fits.theta[track : track + 1], layers)[0][0]
    scale = float((fits.curve[track] - shape).mean())
    return form.report(scale, fits.theta[track], layers)


def aicc(rss: np.ndarray, n: int, count: int) -> np.ndarray:
    """Corrected information criterion n·ln(RSS/n) + 2k + 2k(k+1)/(n−k−1), k = `count` with the noise variance.

    A residual sum below what rounding can resolve counts as that; NaN where n ≤ k + 1, where the correction diverges.

    >>> float(aicc(np.array([10.0]), 10, 2)[0]) == 4 + 12 / 7
    True
    """
    if n <= count + 1:
        return np.full(np.shape(rss), np.nan)
    return n * np.log(np.maximum(rss / n, RESOLUTION**2)) + 2 * count + 2 * count * (count + 1) / (n - count - 1)


def akaike_weights(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """e^{−Δ/2} over its sum, Δ the distance to the lowest value; None stays None and takes no part."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return dict(values)
    least = min(known.values())
    raw = {name: math.exp(-(value - least) / 2) for name, value in known.items()}
    total = math.fsum(raw.values())
    return {name: raw[name] / total if name in raw else None for name in values}


def _starts(form: Form, target: np.ndarray, inner: Mapping[str, Fits], spread: np.ndarray) -> list[np.ndarray]:
    """(track, parameter) for each block of the form's grid: its best point for each track, or the best special case."""
    starts = []
    grids = {reach: form.grid(float(reach)) for reach in np.unique(spread)}
    for number in range(len(form.grid(1.0))):
        theta, best = np.empty((len(target), form.bounds.shape[1])), np.empty(len(target))
        for reach, blocks in grids.items():
            theta[spread == reach], best[spread == reach] = _nearest(form, blocks[number], target[spread == reach])
        for name, embed in form.contains.items():
            if name in inner:
                better = inner[name].rss < best
                theta[better] = embed(inner[name].theta[better], target.shape[1])
                best = np.where(better, inner[name].rss, best)
        starts.append(theta)
    return starts


def _nearest(form: Form, block: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point of a block whose curve is nearest to each track, (track, parameter), and its residual sum."""
    curves, _ = _centred(form, block, target.shape[1])  # (start, layer)
    losses = np.square(curves).sum(1) - 2 * target @ curves.T  # (track, start), up to the track's own square
    return block[losses.argmin(1)], losses.min(1) + np.square(target).sum(1)


def _search(form: Form, target: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levenberg–Marquardt from one start a track: shape parameters, residual sums, centred curves."""
    theta = theta.copy()
    curve, jacobian = _centred(form, theta, target.shape[1])
    rss = np.square(target - curve).sum(1)
    # Bounds give way to a start outside them: a steep power inside an offset power.
    low, high = np.minimum(form.bounds[0], theta), np.maximum(form.bounds[1], theta)
    damping = np.zeros(len(target))
    active = np.arange(len(target))
    enough = CONVERGED * np.square(target).sum(1)
    for _ in range(ITERATIONS if theta.shape[1] else 0):
        now, slopes, lacking = theta[active], jacobian[active], (target - curve)[active]
        gradient, normal = np.einsum("tpl,tl->tp", slopes, lacking), slopes @ slopes.swapaxes(1, 2)
        step = _step(gradient, normal, damping[active])
        outward = (now + step < low[active]) & (now <= low[active]) | (now + step > high[active]) & (
            now >= high[active]
        )
        if outward.any():  # a parameter held at its bound no longer answers
            free = ~outward
            gradient, normal = gradient * free, normal * (free[:, :, None] & free[:, None])
            step = _step(gradient, normal, damping[active])
        trial = np.clip(now + step, low[active], high[active])
        trial_curve, trial_jacobian = _centred(form, trial, target.shape[1])
        trial_rss = np.square(target[active] - trial_curve).sum(1)
        better = trial_rss < rss[active]
        gained = np.where(better, rss[active] - trial_rss, (gradient * step).sum(1))  # or what the step promised
        done = (gained <= enough[active]) & (better | (damping[active] == 0)) | (damping[active] > 1e6)
        moved = active[better]
        theta[moved], curve[moved], jacobian[moved] = trial[better], trial_curve[better], trial_jacobian[better]
        rss[moved] = trial_rss[better]
        damping[active] = np.where(better, damping[active] / 10, np.maximum(10 * damping[active], 1e-3))
        active = active[~done]
        if not len(active):
            break
    return theta, rss, curve


def _centred(form: Form, theta: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    curve, jacobian = form.shape(theta, layers)
    return curve - curve.mean(-1, keepdims=True), jacobian - jacobian.mean(-1, keepdims=True)


def _step(gradient: np.ndarray, normal: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Levenberg–Marquardt step."""
    size = np.einsum("tpp->tp", normal)
    # The last terms keep a parameter without influence (the exponent of a flat curve) where it is.
    ridge = damping[:, None] * size + 1e-15 * size.max(1, keepdims=True) + 1e-300
    if size.shape[1] == 1:
        return gradient / (size + ridge)
    if size.shape[1] > 2:
        return np.linalg.solve(normal + ridge[:, :, None] * np.eye(size.shape[1]), gradient[..., None])[..., 0]
    (a, d), b = (size + ridge).T, normal[:, 0, 1]
    u, v = gradient.T
    determinant = np.maximum(a * d - b * b, 1e-16 * a * d + 1e-300)  # of two parameters that do the same, rounding
    return np.stack([d * u - b * v, a * v - b * u], 1) / determinant[:, None]
