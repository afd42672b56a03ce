"""R² of the best form among surrogates, fitted only where it can matter: p and level are those of all fits.

To p matters whether a surrogate's R² reaches the track's own, to the level that a planted law must reach which R² are
the largest. Of the others their bound is enough (`monotone`): they are not fitted, and keep it as their value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from analyses.numerics.pvalues import TIE
from analyses.schedule_fit.monotone import most_r2

Fitted = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (track, layer) ln y, (track) spread of its batch → (track) R²


@dataclass(frozen=True, slots=True)
class Screened:
    """Surrogates of one kind, in one batch or several."""

    tracks: np.ndarray  # (draw, layer)
    spread: np.ndarray  # (draw,) range of ln y of its batch
    values: np.ndarray  # (draw,) R², or its bound where it was not fitted
    known: np.ndarray  # (draw,) whether it was

    @classmethod
    def of(cls, tracks: np.ndarray, spread: float) -> "Screened":
        return cls(tracks, np.full(len(tracks), spread), most_r2(tracks), np.zeros(len(tracks), dtype=bool))

    def joined(self, other: "Screened") -> "Screened":
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return Screened(*(np.concatenate(pair) for pair in pairs))


def settle(nulls: Mapping[str, Screened], fitted: Fitted, least: float) -> None:
    """Fit every surrogate that may reach this R²; all kinds in one call."""
    reach = least - TIE * abs(least)
    _fit({kind: ~null.known & (null.values >= reach) for kind, null in nulls.items()}, nulls, fitted)


def settle_level(nulls: Mapping[str, Screened], fitted: Fitted, share: float) -> None:
    """Fit what the largest of the kinds' `share` quantiles rests on."""
    level = -np.inf
    for kind, null in nulls.items():
        above = len(null.values) - int(np.floor(share * (len(null.values) - 1)))  # of which the least is interpolated
        while True:
            order = np.argsort(-null.values, kind="stable")[:above]
            if null.known[order].all():
                level = max(level, float(np.quantile(null.values, share)))
                break
            if null.values[order[max(0, above - 2)]] < level:  # the quantile is below that of another kind
                break
            known, least = np.sort(null.values[null.known]), null.values[order[-1]]
            if null.values[order[~null.known[order]]].max() >= level:
                least = max(level, known[-above] if len(known) >= above else least)
            _fit({kind: ~null.known & (null.values >= least)}, nulls, fitted)


def _fit(todo: Mapping[str, np.ndarray], nulls: Mapping[str, Screened], fitted: Fitted) -> None:
    asked = {kind: which for kind, which in todo.items() if which.any()}
    if not asked:
        return
    tracks, spread = (
        np.concatenate([getattr(nulls[kind], name)[which] for kind, which in asked.items()])
        for name in ("tracks", "spread")
    )
    found = np.split(fitted(tracks, spread), np.cumsum([which.sum() for which in asked.values()])[:-1])
    for (kind, which), values in zip(asked.items(), found, strict=True):
        nulls[kind].values[which], nulls[kind].known[which] = values, True
