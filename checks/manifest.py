"""What determined the numbers: the model's files, the settings, the versions.

`date` and `timings` are the only parts that differ between two runs of the same thing.
"""

import importlib.metadata
import platform
import shlex
from datetime import UTC, datetime
from typing import Any

import torch

from analyses import records
from analyses.measure import Measured
from checks import __version__

PACKAGES = ("torch", "transformers", "numpy", "scipy", "jinja2", "safetensors", "tokenizers")


def manifest(measured: Measured) -> dict[str, Any]:
    """The content of `manifest.json`. Holds no user name, no host name and no absolute path."""
    checkpoint, settings = measured.checkpoint, measured.settings
    return {
        "schema_version": records.SCHEMA_VERSION,
        "model": checkpoint.name,
        "revision": checkpoint.revision,
        "absent": {} if checkpoint.revision else {"revision": "a folder has no revision; its files are hashed"},
        "files": measured.files,
        "records": _checksums(measured),
        "architecture": {
            "model_type": checkpoint.config["model_type"],
            "layers": checkpoint.shape.layers,
            "hidden": checkpoint.shape.hidden,
            "heads": checkpoint.shape.heads,
            "kv_heads": checkpoint.shape.kv_heads,
            "head_dim": checkpoint.shape.head_dim,
            "feed_forward": checkpoint.shape.feed_forward,
            "parameters": checkpoint.parameters(),
            "stored_dtype": measured.stored_dtype,
        },
        "settings": {
            "device": settings.device,
            "dtype": settings.dtype,
            "attention": settings.attention,
            "seed": settings.seed,
            "analyses": settings.only,
            "trust_remote_code": settings.trust_remote_code,
        },
        "calibration": {"name": measured.calibration.name, "sha256": measured.calibration.sha256},
        "forward": measured.forward or {"skipped": "no forward pass was run"},
        "versions": _versions(),
        "machine": _machine(),
        "command": command(measured),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "timings": measured.seconds,
    }


def _checksums(measured: Measured) -> dict[str, str]:
    """Analysis → checksum of the record that this manifest describes."""
    read = records.read_record
    return {n: read(measured.folder / f"{n}.json", arrays=False)["checksum"] for n in measured.settings.only}


def command(measured: Measured) -> str:
    """The command that makes this page again. A folder is given by its name alone."""
    settings, model = measured.settings, measured.checkpoint.name
    if measured.checkpoint.revision:
        model += f"@{measured.checkpoint.revision}"
    words = ["fathom", "run", model, "--device", settings.device, "--dtype", settings.dtype]
    words += ["--attention", settings.attention, "--seed", str(settings.seed)]
    if settings.calibration:
        words += ["--calibration", settings.calibration.name]
    if settings.only != records.ANALYSES:
        words += ["--only", ",".join(settings.only)]
    return shlex.join(words)


def _versions() -> dict[str, str]:
    versions = {"fathom": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return versions


def _machine() -> dict[str, Any]:
    threads = torch.get_num_threads()
    facts: dict[str, Any] = {"system": platform.system(), "processor": platform.machine(), "threads": threads}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts
