"""Making a result the recorded one, with a reason: the only way in which what `verify` expects may change.

What is kept is small: metrics, identities, keys, verdicts and the answers of their controls, and arrays of
a few dozen numbers. Of the rest the checksum is kept, which says whether a machine gives every last digit
again. `log.jsonl` grows by one line each time, which names every file by its hash; a recorded file that
the last line does not name as it is was changed by hand, and `verify` refuses it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analyses import records, registry
from analyses.errors import InputError
from checks.verify.results import LOG, received, recorded_files

LARGE = 2000  # bytes of JSON; larger top-level values of a record are kept by checksum alone
KEPT = ("metrics", "identities", "absent", "key")  # whatever their size
MACHINE = ("machine", "versions", "timings")  # of the manifest: what may move a number, and what it costs


def shortened(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its large values left out; their names are listed, and the checksum stays that of the whole."""
    large = [n for n, value in record.items() if n not in KEPT and len(records.canonical(value)) > LARGE]
    if not large:
        return dict(record)
    kept = {name: value for name, value in record.items() if name not in large}
    return kept | {"shortened": sorted(large)}


def slim(judged: Mapping[str, Any]) -> dict[str, Any]:
    """The gates' answers, and of their controls what a verdict rests on."""
    parts = ("id", "analysis", "claim", "status")
    claims = []
    for claim in judged["claims"]:
        controls = {
            name: evidence and {key: evidence[key] for key in ("answer", "detail")}
            for name, evidence in (claim["controls"] or {}).items()
        }
        claims.append({key: claim[key] for key in (*parts, "verdict", "raw")} | {"controls": controls or None})
    stored = [{key: claim[key] for key in (*parts, "verdict", "meets")} for claim in judged["stored"]]
    integrity = [{key: outcome[key] for key in parts} for outcome in judged["integrity"]]
    return {"schema_version": judged["schema_version"], "integrity": integrity, "claims": claims, "stored": stored}


def changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[str]:
    """Metrics and verdicts that differ between two recorded results, old and new value in one line each."""
    lines = []
    for name in registry.NAMES:
        old, new = (json.loads(files.get(f"{name}.json", b"{}")).get("metrics", {}) for files in (before, after))
        for metric in sorted({*old, *new}):
            one, other = (metrics.get(metric, {}).get("value") for metrics in (old, new))
            if one != other:
                lines.append(f"{name}.{metric}: {_number(one)} → {_number(other)}")
    old, new = (_words(json.loads(files.get("gates.json", b"{}"))) for files in (before, after))
    lines += [f"{id}: {old.get(id, 'none')} → {new.get(id, 'none')}" for id in new if old.get(id) != new[id]]
    return lines


def accept(folder: Path, recorded: Path, *, reason: str, tolerances: Mapping[str, Any]) -> list[str]:
    """Make what lies in `folder` the recorded result; returns what changed, in lines.

    Raises InputError for an empty reason, for a result that is not whole or in which an identity is broken,
    and where nothing would change.
    """
    if not reason.strip():
        raise InputError("--reason: say in a sentence why the recorded result changes")
    with received(folder) as result:
        if result.judged is None:
            raise InputError(f"{folder}: no gates.json; run `fathom report {folder.name}` first")
        broken = [o["id"] for o in result.judged["integrity"] if o["status"] not in ("pass", "skip")]
        if broken:
            raise InputError(f"{folder}: {broken[0]} does not pass; a result with a broken identity is not recorded")
        failed = [name for name, record in result.found.items() if "error" in record]
        if failed:
            raise InputError(f"{folder}: {failed[0]} failed; measure it again before it is recorded")
        files = {f"{name}.json": shortened(record) for name, record in result.found.items()}
        files["gates.json"] = slim(result.judged)
        files["manifest.json"] = dict(result.manifest)
        files["tolerances.json"] = dict(tolerances)
        new = {name: _written(tree) for name, tree in files.items()}
        commit = result.manifest.get("source", {}).get("commit", "unknown")
    old = recorded_files(recorded)
    changed = changes(old, new)
    if _results(old) == _results(new):
        raise InputError(f"{recorded.name}: the recorded result is this one already; nothing to accept")
    for name in old.keys() - new.keys():
        (recorded / name).unlink()
    for name, data in new.items():
        records.write_bytes(recorded / name, data)
    entry = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "reason": reason.strip(),
        "commit": commit,
        "changed": changed,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(new.items())},
    }
    log = recorded / LOG
    history = log.read_bytes() if log.exists() else b""
    records.write_bytes(log, history + records.canonical(entry) + b"\n")
    return changed


def _results(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a result says; the manifest and the tolerances hold dates and draws."""
    return {name: data for name, data in files.items() if name not in ("manifest.json", "tolerances.json")}


def _words(judged: Mapping[str, Any]) -> dict[str, str]:
    claims: Sequence[Mapping[str, Any]] = judged.get("claims", ())
    return {claim["id"]: claim["verdict"] for claim in claims}


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.17g}"


def _written(tree: Mapping[str, Any]) -> bytes:
    """Sorted and one value a line down to the second level, so that a change reads as one."""
    lines = []
    for name in sorted(tree):
        value = tree[name]
        if isinstance(value, Mapping) and name in ("metrics", "identities", "key", "dtypes"):
            inner = ",\n".join(f" {json.dumps(k)}: {_json(value[k])}" for k in sorted(value))
            lines.append(f"{json.dumps(name)}: {{\n{inner}\n}}")
        else:
            lines.append(f"{json.dumps(name)}: {_json(value)}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
