"""One claim over many results: its number, interval and words, beside the model's size and training step."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from analyses.errors import InputError
from checks.claims.written import deciding
from checks.tables.tables import Table

COLUMNS = (
    "model", "revision", "step", "parameters", "id", "verdict", "quantity", "observed", "low", "high",
    "comparator", "threshold", "unit", "p", "p_adjusted",
)  # fmt: skip
STEP = re.compile(r"(?:global_)?(?:step|checkpoint|ckpt|iter(?:ation)?)[_-]?(\d+)", re.IGNORECASE)
"""What of a folder's or a revision's name tells a training step."""

Judged = tuple[Mapping[str, Any], Mapping[str, Any]]


def across(claim: str, results: Sequence[Judged]) -> Table:
    """A row for each result, of the condition that decides the claim there.

    Parameters
    ----------
    claim : its id.
    results : of each result the manifest and the content of `gates.json`.

    Raises
    ------
    InputError : where no result has this claim, or they were judged by several sets of claims.
    """
    asked = _asked(claim, results)
    rows = [_row(manifest, model, row, row["findings"][deciding(row)]) for manifest, model, row in asked]
    return Table(name=claim, columns=COLUMNS, rows=rows)


def family(claim: str, results: Sequence[Judged]) -> Table:
    """As `across`, but of one condition in all results, so that their numbers can stand on one axis.

    It is the one that decides in most of them; of equally many, the first.
    """
    asked = _asked(claim, results)
    votes = Counter(deciding(row) for *_, row in asked)
    at = min(votes, key=lambda k: (-votes[k], k))
    rows = [_row(manifest, model, row, row["findings"][at]) for manifest, model, row in asked]
    return Table(name=claim, columns=COLUMNS, rows=rows)


def _asked(claim: str, results: Sequence[Judged]) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    found, known, sets = [], {}, {}
    for manifest, judged in results:
        asked = {row["id"]: row for row in (*judged["claims"], *judged["stored"])}
        known |= asked
        if claim in asked:
            found.append((manifest, judged["model"], asked[claim]))
            sets.setdefault(judged.get("claim_set"), judged["model"])
    if not found:
        raise InputError(f"no claim '{claim}' in these results (there are: {', '.join(known) or 'none'})")
    if len(sets) > 1:
        (a, first), (b, other), *_ = sets.items()
        raise InputError(
            f"{first} was judged by claim set {a}, {other} by {b}; judge all by one: `fathom report DIR --claim-set N`"
        )
    return found


def _row(
    manifest: Mapping[str, Any], model: str, claim: Mapping[str, Any], finding: Mapping[str, Any]
) -> tuple[Any, ...]:
    own = {
        "model": model,
        "revision": manifest.get("revision"),
        "step": step_of(f"{model}@{manifest.get('revision')}"),
        "parameters": manifest.get("architecture", {}).get("parameters"),
        "p": claim["p"],
        "p_adjusted": claim.get("p_adjusted"),
        "id": claim["id"],
        "verdict": claim["verdict"],
    }
    low, high = finding["interval"] or (None, None)
    return tuple((finding | own | {"low": low, "high": high})[column] for column in COLUMNS)


def step_of(name: str) -> int | None:
    """The training step in a model's name or revision, if it has one.

    >>> step_of("pythia-160m@step1000"), step_of("run/checkpoint-200"), step_of("gpt2@None")
    (1000, 200, None)
    """
    found = STEP.search(name)
    return int(found[1]) if found else None
