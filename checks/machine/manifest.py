"""The manifest: what determined the numbers, which is files, settings, code and environment.

`date` and `timings` are the only parts that differ between two runs of the same thing.
"""

import hashlib
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analyses import records, registry
from analyses.forward.inputs import Settings
from analyses.run import keys
from analyses.run.measure import Measured
from checks.machine import environment
from checks.maps import invariance


def manifest(measured: Measured) -> dict[str, Any]:
    """The content of `manifest.json`. Holds no user name, no host name and no absolute path."""
    checkpoint = measured.checkpoint
    found = {
        name: records.read_record(measured.folder / f"{name}.json", arrays=False) for name in measured.settings.only
    }
    return {
        "schema_version": records.SCHEMA_VERSION,
        "model": checkpoint.name,
        "revision": checkpoint.revision,
        "absent": {} if checkpoint.revision else {"revision": "a folder has no revision; its files are hashed"},
        "files": measured.files,
        "tensors": measured.tensors,
        "records": {name: record["checksum"] for name, record in found.items()},
        "architecture": {
            "model_type": checkpoint.config.get("model_type", "(none)"),
            "family": checkpoint.architecture.name,
            "layers": checkpoint.shape.layers,
            "hidden": checkpoint.shape.hidden,
            "heads": checkpoint.shape.heads,
            "kv_heads": checkpoint.shape.kv_heads,
            "head_dim": checkpoint.shape.head_dim,
            "feed_forward": checkpoint.shape.feed_forward,
            "experts": checkpoint.shape.experts,
            "parameters": checkpoint.parameters(),
            "stored_dtype": measured.stored_dtype,
            "notes": checkpoint.notes,
            "record": hashlib.sha256(repr(checkpoint.architecture).encode()).hexdigest(),
        },
        "settings": settings(measured.settings),
        "calibration": {"name": measured.calibration.name, "sha256": measured.calibration.digest},
        "forward": measured.forward or {"skipped": "no forward pass was run"},
        "analyses": {name: _analysis(record["key"]) for name, record in found.items()},
        "invariance": {name: invariance.table(name, checkpoint) for name in measured.settings.only},
        "source": environment.source(),
        "versions": environment.versions(),
        "machine": environment.machine(),
        "determinism": environment.determinism(),
        "command": command(measured),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "timings": measured.seconds,
    }


def settings(given: Settings) -> dict[str, Any]:
    """Resolved settings, as the manifest has them; of the user's texts the names alone."""
    texts = [given.calibration] if isinstance(given.calibration, Path) else given.calibration or ()
    return {
        "device": given.device,
        "dtype": given.dtype,
        "attention": given.attention,
        "seed": given.seed,
        "spectra": given.spectra,
        "matching": given.matching,
        "analyses": given.only,
        "layers": keys.chosen(given.layers),
        "families": keys.chosen(given.families),
        "batch": "one sequence at a time, no padding",
        "trust_remote_code": given.trust_remote_code,
        "calibration": [path.name for path in texts],
        "tokens": given.tokens,
        **({"stack": given.stack} if given.stack else {}),
    }


def _analysis(key: Mapping[str, Any]) -> dict[str, Any]:
    """One analysis' version, the digest of its code, and the digest of its whole key."""
    return {"version": key["analysis_version"], "code": key["code"], "key": keys.digest(key)}


def command(measured: Measured) -> str:
    """The command that makes this page again. A folder is given by its name alone."""
    return command_of(measured.checkpoint.name, measured.checkpoint.revision, settings(measured.settings))


def command_of(model: str, revision: str | None, given: Mapping[str, Any]) -> str:
    """The same from what a manifest says: the model and its settings."""
    words = ["fathom", "run", f"{model}@{revision}" if revision else model]
    for name in ("device", "dtype", "attention", "seed"):
        words += [f"--{name}", str(given[name])]
    words += [word for name in given.get("calibration", ()) for word in ("--calibration", name)]
    words += ["--tokens", str(given["tokens"])] if given.get("tokens") else []
    if given["spectra"] != "exact" or "matching" in given:  # pages from before there was an auto have it as default
        words += ["--spectra", given["spectra"]]
    words += ["--no-matching"] if given.get("matching") == "none" else []
    if tuple(given["analyses"]) != registry.NAMES:
        words += ["--only", ",".join(given["analyses"])]
    words += ["--stack", given["stack"]] if given.get("stack") else []
    for name in ("layers", "families"):
        words += [f"--{name}", given[name]] if given[name] != "all" else []
    return shlex.join(words)
