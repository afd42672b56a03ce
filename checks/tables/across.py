"""One claim over many results: its number, interval and words, beside the model's size and training step."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from analyses.errors import InputError
from checks.claims.gate import DECISIVE
from checks.tables.tables import Table

COLUMNS = (
    "model", "revision", "step", "parameters", "id", "verdict", "quantity", "observed", "low", "high",
    "comparator", "threshold", "unit", "p", "p_adjusted",
)  # fmt: skip
STEP = re.compile(r"step[-_]?(\d+)|checkpoint-(\d+)")


def across(claim: str, results: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Table:
    """A row for each result, of the condition that decides the claim there.

    Parameters
    ----------
    claim : its id.
    results : of each result the manifest and the content of `gates.json`.

    Raises
    ------
    InputError : where no result has this claim.
    """
    rows, known = [], {}
    for manifest, judged in results:
        asked = {row["id"]: row for row in (*judged["claims"], *judged["stored"])}
        known |= asked
        if claim in asked:
            rows.append(_row(manifest, judged["model"], asked[claim]))
    if not rows:
        raise InputError(f"no claim '{claim}' in these results (there are: {', '.join(known)})")
    return Table(name=claim, columns=COLUMNS, rows=rows)


def _row(manifest: Mapping[str, Any], model: str, claim: Mapping[str, Any]) -> tuple[Any, ...]:
    finding = min(claim["findings"], key=lambda f: DECISIVE.index(f["status"]))
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
    return int(next(filter(None, found.groups()))) if found else None
