"""Versions of the built-in claims, so that an old result can be judged again as it was.

Set 1 is that of Fathom 0.1 and 0.2: the 21 published claims, each asked of the published number as stored, p-values
with a limit like any other number, without correction for their number. Set 2 asks statistics that no exact change of
parameters moves, and keeps the published numbers in rows of their own.
"""

from collections.abc import Sequence
from dataclasses import replace

from checks.claims import CLAIMS
from checks.claims.gate import STORED, Gate

LATEST = 2
VERSIONS = (1, LATEST)
FIRST = (
    "NR1", "NR1m", "NR2", "NR3", "NR4", "NR5", "SF1", "SF2", "SF3", "SF4", "HG1", "HG2", "HG3",
    "HE1", "HE2", "HE3", "DS1", "DS2", "DS3", "DS4", "DS5",
)  # fmt: skip
LATER = ("delta_svd.metrics.write_alignment", "delta_svd.metrics.write_overlap")
"""Numbers that claims of the first set ask only since."""


def gates_of(version: int) -> Sequence[Gate]:
    """The claims of one of VERSIONS, in the order of the page."""
    if version == LATEST:
        return CLAIMS
    known = {gate.id: gate for gate in CLAIMS}
    return [_as_first(known.get(id + STORED) or known[id], id) for id in FIRST]


def _as_first(gate: Gate, id: str) -> Gate:
    asked = [condition for condition in gate.conditions if condition.path not in LATER]
    conditions = tuple(replace(condition, test=False, power=None) for condition in asked)
    return replace(gate, id=id, row="model", conditions=conditions)
