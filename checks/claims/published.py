"""Published numbers beside this model's own, by the same formula, and readings of one finding that rival each other."""

import math
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from checks.claims import CLAIMS

FILE = Path(__file__).with_name("published.toml")
KEYS = {"claim", "model", "value", "tolerance", "path", "quantity", "source", "original"}
NEAREST = {"type", "millions"}  # keys of an entry of one model, by which it is found as a relative
RIVALS: Mapping[str, str] = {gate.id: gate.rival for gate in CLAIMS if gate.rival}
"""Row → the row with the other reading."""


@cache
def numbers() -> tuple[Mapping[str, Any], ...]:
    """The entries of published.toml, in their order."""
    return tuple(tomllib.loads(FILE.read_text(encoding="utf-8"))["number"])


def beside(
    claim: str, model: str, found: Mapping[str, Mapping[str, Any]], architecture: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Published numbers for a claim: of this model where there are any, else of its nearest relative.

    That is the one of its own model type with the nearest number of parameters, else of any; one whose number by the
    published formula was measured here comes before one whose was not.

    Parameters
    ----------
    model : its name, as given or as the hub spells it. found : analysis → record. architecture : as in the manifest.

    Returns
    -------
    Each entry with `own`, our number by the published formula (None where it was not measured), `same`, whether it is
    this model, and `difference`, own − value where it is.
    """
    entries = [entry for entry in numbers() if entry["claim"] == claim]
    mine = [entry for entry in entries if model in entry["model"]]
    relatives = sorted(entries, key=lambda entry: _distance(entry, found, architecture or {}))
    rows = []
    for entry in mine or relatives[:1]:
        own = _number(found, entry["path"])
        same = bool(mine)
        difference = own - entry["value"] if same and own is not None else None
        rows.append({**entry, "own": own, "same": same, "difference": difference})
    return rows


def _distance(
    entry: Mapping[str, Any], found: Mapping[str, Any], architecture: Mapping[str, Any]
) -> tuple[bool, bool, float]:
    millions, own = entry.get("millions"), architecture.get("parameters", 0) / 1e6
    apart = abs(math.log(own / millions)) if millions and own else math.inf
    return _number(found, entry["path"]) is None, entry.get("type") != architecture.get("model_type"), apart


def _number(found: Mapping[str, Any], path: str) -> float | None:
    node: Any = found
    for word in path.split("."):
        node = node.get(word) if isinstance(node, Mapping) else None
    if isinstance(node, Sequence):
        known = [value for value in node if value is not None]
        return statistics.median(known) if known else None
    return node


SUPPORTS = {
    (True, False): "This model supports this reading and not the other.",
    (False, True): "This model supports the other reading and not this one.",
    (True, True): "This model supports both readings.",
    (False, False): "This model supports neither reading.",
}


def readings(claim: Mapping[str, Any], claims: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """The rival reading of a claim, its word, and which of the two this model supports; None where there is none."""
    other = next((c for c in claims if c["id"] == RIVALS.get(claim["id"])), None)
    if other is None:
        return None
    words = claim["verdict"], other["verdict"]
    decided = all(word in ("holds", "does not hold", "uninformative") for word in words)
    holds = tuple(word == "holds" for word in words)
    told = SUPPORTS[holds] if decided or any(holds) else "What is undecided leaves both readings open."
    if any(holds) and not decided:
        told = "This model supports the reading that holds; the other is open."
    return {"id": other["id"], "claim": other["claim"], "verdict": other["verdict"], "told": told}
