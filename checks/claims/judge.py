"""From records to `gates.json`: every gate evaluated, every claim given its verdict.

The verdict is a word for people (`checks.claims.verdicts`). Until a claim's controls are run, it rests on
the gate alone, and the page says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses import records, registry
from analyses.errors import LEFT_OUT, InputError
from checks.claims import INTEGRITY, written
from checks.claims.gate import Gate, Outcome, evaluate
from checks.claims.invariance import invariance_outcomes
from checks.claims.sets import LATEST, gates_of
from checks.claims.verdicts import MEETS, VERDICTS, adjusted, stored_verdict, verdict

SCHEMA_VERSION = 2
READING = (
    "Version 2 has two rows for a published claim. `claims` are asked of statistics that no exact change of parameters "
    "moves. The numbers of version 1 that such a change moves are in `stored`, with the same paths, under the id of "
    "version 1 and `.stored`; what was `claims` in version 1 is the row of that id in `stored`, or else in `claims`."
)


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """The analysis records that a model's folder holds, by analysis; raises InputError if there is none."""
    if not (found := current_records(folder)):
        raise InputError(f"{folder}: no records; run `fathom measure` first")
    return found


def current_records(folder: Path) -> dict[str, dict[str, Any]]:
    """The analysis records of a folder. One that its manifest does not describe counts as skipped, with
    that reason: numbers of two runs never stand side by side.

    Raises InputError for a record of another schema version, or one changed since it was written.
    """
    paths = {name: folder / f"{name}.json" for name in registry.NAMES}
    found = {name: records.read_record(path, arrays=False) for name, path in paths.items() if path.exists()}
    if not found:
        return {}
    described = written.read(folder / "manifest.json").get("records", {})
    return {
        name: record if record["checksum"] == described.get(name) else _of_another_run(record)
        for name, record in found.items()
    }


def _of_another_run(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: record[key] for key in ("schema_version", "analysis", "model", "key", "checksum")}
    told = f"{record['analysis']} was {LEFT_OUT}: its record is of another run; measure it again"
    return kept | {"absent": {}, "skipped": told}


def read_controls(folder: Path, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of `controls.json`; empty where none were run on these records."""
    path = folder / "controls.json"
    if not path.exists():
        return {}
    evidence = written.read(path)
    return evidence if evidence.get("records") == checksums(found) else {}


def checksums(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Analysis → checksum of its record: what names a set of results."""
    return {name: record["checksum"] for name, record in found.items()}


def judge(
    found: Mapping[str, Mapping[str, Any]],
    controls: Mapping[str, Any] | None = None,
    *,
    own: Sequence[Gate] = (),
    stated: Mapping[str, Any] | None = None,
    claim_set: int = LATEST,
) -> dict[str, Any]:
    """The content of `gates.json` from a model's records.

    Keys: `model`; `integrity`, `claims` (rows about the model) and `stored` (rows about the stored coordinates),
    lists of outcomes; `counts`, how many claims have each verdict and how many integrity gates each status;
    `verdicts`, the meaning of each word; `reading`, how this version differs from the one before; `claim_set`, the
    version of the built-in claims; `own`, what is known of claims that are not built in.

    Parameters
    ----------
    own : gates of claims that the reader stated, asked of `found` beside the built-in ones.
    stated : when they were, for `own`.
    claim_set : version of the built-in claims (`checks.claims.sets`).
    """
    asked = [*gates_of(claim_set), *own]
    controls = controls or {}
    integrity = [records.plain(evaluate(gate, found)) for gate in INTEGRITY]
    integrity += [records.plain(outcome) for outcome in invariance_outcomes(controls.get("invariance") or {})]
    evidence, orbits = controls.get("claims") or {}, controls.get("orbits") or {}
    claims = [_model_row(evaluate(g, found), evidence.get(g.id)) for g in asked if g.row == "model"]
    claims = adjusted(claims) if claim_set > 1 else [_alone(claim) for claim in claims]
    return {
        "schema_version": SCHEMA_VERSION,
        "reading": READING,
        "claim_set": claim_set,
        "own": stated,
        "model": next(iter(found.values()))["model"],
        "integrity": integrity,
        "claims": claims,
        "stored": [_stored_row(evaluate(g, found), orbits) for g in asked if g.row == "stored"],
        "counts": {
            "claims": Counter(claim["verdict"] for claim in claims),
            "integrity": Counter(outcome["status"] for outcome in integrity),
        },
        "verdicts": VERDICTS,
    }


def _model_row(outcome: Outcome, controls: Mapping[str, Any] | None) -> dict[str, Any]:
    word, reason = verdict(outcome.status, outcome.reason, controls)
    return records.plain(outcome) | {"verdict": word, "verdict_reason": reason, "controls": controls}


def _alone(claim: dict[str, Any]) -> dict[str, Any]:
    """With its own word, whatever else was asked."""
    return claim | {"raw": {"verdict": claim["verdict"], "reason": claim["verdict_reason"]}, "p_adjusted": None}


def _stored_row(outcome: Outcome, orbits: Mapping[str, Any]) -> dict[str, Any]:
    """With the range that exact changes of parameters reach for each of its numbers, where that was measured."""
    word, reason = stored_verdict(outcome.status, outcome.reason)
    ranges = [orbits.get(finding.path) for finding in outcome.findings]
    return records.plain(outcome) | {
        "verdict": word,
        "verdict_reason": reason,
        "meets": MEETS[outcome.status],
        "orbits": ranges,
    }


def exit_code(judged: Mapping[str, Any], *, strict: bool) -> int:
    """0 all ran and every integrity gate passed, 1 a gate failed, 2 an error, 3 nothing evaluated.

    A failed claim counts only if strict. An integrity gate that was skipped with its analysis is
    no failure; one that could not be decided is.
    """
    integrity = {outcome["status"] for outcome in judged["integrity"]}
    claims = {claim["status"] for claim in judged["claims"]}
    if "error" in integrity | claims:
        return 2
    if integrity | claims <= {"skip"}:
        return 3
    return int(bool(integrity & {"fail", "inconclusive"}) or (strict and "fail" in claims))
