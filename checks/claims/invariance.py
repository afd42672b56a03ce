"""Invariance as an identity: every statistic that a row about the model reads stays under every exact map.

The differences were measured with the controls (`controls.json`, key `invariance`); here they become outcomes of
integrity gates, one for each map, decided by the statistic that moved furthest against its tolerance.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from checks.claims.gate import Outcome, evaluate, identity

_REASON = (
    "Both sides are the same function of exactly equal models, so only rounding may differ: 1e-6 relative where every "
    "factor cancels, 1e-4 where a norm's eps stands between, which a change of scale does not pass exactly"
)


def invariance_outcomes(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Outcome]:
    """Outcomes of the gates `invariance.<map>`.

    Parameters
    ----------
    measured : map → its comparisons, each with `path`, `difference` (relative, or None) and `tolerance`.
    """
    return [_outcome(name, comparisons) for name, comparisons in measured.items() if comparisons]


def _outcome(name: str, comparisons: Sequence[Mapping[str, Any]]) -> Outcome:
    worst = max(comparisons, key=lambda c: math.inf if c["difference"] is None else c["difference"] / c["tolerance"])
    key = name.replace(" ", "_")
    gate = identity(
        f"invariance.{key}",
        f"Every statistic that a claim about the model reads stays under {name}",
        f"largest relative difference ({worst['path']})",
        limit=worst["tolerance"],
        reason=_REASON,
    )
    metric = {
        "value": worst["difference"],
        "interval": None,
        "n": {"statistics": len(comparisons)},
        "where": worst["path"],
        "reason": "the number comes or goes" if worst["difference"] is None else None,
        "applies": True,
    }
    return evaluate(gate, {"invariance": {"dtype": "float64", "identities": {key: metric}}})
