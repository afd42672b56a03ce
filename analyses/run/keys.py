"""What determines a record? A flat key of it: equal keys promise equal numbers, and unequal ones say what differs.

Only what an analysis can see is in its key: the norm of a weight matrix does not depend on the text,
so `null_residual` keeps its key when the text changes. Host, path and time are in none.
"""

import functools
import hashlib
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from analyses import registry
from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.records import digest as digest
from analyses.weights.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]
LIBRARIES = ("torch", "transformers", "numpy", "scipy")
# Read off the text: parsing a hundred files costs as much as an analysis of a small model.
IMPORT = re.compile(r"^[ \t]*(?:from ([\w.]+) import (?:\(([^)]*)\)|(.+))|import (.+))$", re.MULTILINE)

INPUTS = ("weights", "config", "tokenizer", "revision", "model", "calibration")
SETTINGS = ("dtype", "attention", "seed", "stack", "layers", "families", "spectra", "matching", "trust_remote_code")
ANALYSIS = ("analysis", "analysis_version", "code", "inputs")
ENVIRONMENT = ("threads", "device_class", "libraries")
PARTS = (*INPUTS, *SETTINGS, *ANALYSIS, *ENVIRONMENT)
"""In the order in which a difference is told; the first three kinds make another question, the last another answer."""

WORDS = {
    "calibration": "text",
    "analysis_version": "analysis",
    "code": "analysis",
    "inputs": "an analysis that it reads",
    "device_class": "device",
    "trust_remote_code": "trust in the model's own code",
}

Key = dict[str, str | int]


def key_of(
    checkpoint: Checkpoint, analysis: str, settings: Settings, calibration: Calibration, files: Mapping[str, str]
) -> Key:
    """All that determines the record of one analysis, flat.

    Parameters
    ----------
    settings : as resolved (`measure.resolve`): no "auto" left.
    files : name → sha256 of the checkpoint's files, from `Checkpoint.inspect`.

    Returns
    -------
    Every part of PARTS, `stack` only where one is asked for. `revision` is the hub's commit, or "sha256:…" over the
    files of a folder; `weights`, `config` and `tokenizer` are digests over the names and hashes of those files; `code`
    is the digest of every source that the analysis imports. `inputs` is the digest of the keys of the
    records that it reads, "none" where it reads the checkpoint alone.
    """
    reads = {name: digest(key_of(checkpoint, name, settings, calibration, files)) for name in registry.reads(analysis)}
    forward = bool(registry.FORWARD & {analysis, *reads})
    groups = {kind: digest({n: h for n, h in files.items() if _kind(n) == kind}) for kind in INPUTS[:3]}
    probes = ("analyses.forward.instrumented",) if analysis in registry.FORWARD else ()
    return {
        **groups,
        "revision": checkpoint.revision or f"sha256:{digest(groups)}",
        "model": checkpoint.name,
        "calibration": calibration.digest if forward else "none",
        "dtype": settings.dtype if forward else "float64",
        "attention": settings.attention if forward else "none",
        "trust_remote_code": int(settings.trust_remote_code and forward),
        "seed": settings.seed,
        "layers": chosen(settings.layers),
        "families": chosen(settings.families),
        "spectra": settings.spectra,
        "matching": settings.matching,
        "analysis": analysis,
        "analysis_version": registry.row(analysis).version,
        "code": code(f"analyses.{analysis}", *probes),
        "inputs": digest(reads) if reads else "none",
        "threads": torch.get_num_threads(),
        "device_class": settings.device,
        "libraries": libraries(),
        **({"stack": settings.stack} if settings.stack else {}),
    }


def libraries() -> str:
    """Names and versions of the libraries that compute."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The parts in which two keys differ, in the order of PARTS; a part that one lacks differs."""
    return [part for part in PARTS if old.get(part) != new.get(part)]


def told(parts: Iterable[str]) -> str:
    """Parts in words, the consequence of another left out: "weights, dtype".

    >>> told(["weights", "revision", "code", "inputs"])
    'weights, analysis'
    """
    parts = list(parts)
    if {"weights", "config", "tokenizer"} & set(parts):
        parts = [part for part in parts if part != "revision"]
    if set(parts) != {"inputs"}:
        parts = [part for part in parts if part != "inputs"]
    return ", ".join(dict.fromkeys(WORDS.get(part, part) for part in parts))


def code(*modules: str) -> str:
    """sha256 over the sources of these modules and of all of this project that they import, directly or not.

    What joins the analyses (`analyses.run.suite`) is part of each.
    """
    found = {"analyses.run.suite"}.union(*(_closure(module) for module in modules))
    sources = {module: hashlib.sha256(_path(module).read_bytes()).hexdigest() for module in found}
    return digest(sources)


@functools.cache
def _closure(module: str) -> frozenset[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += _imports(name)
    return frozenset(found)


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Modules of this project that this one imports, wherever in the file."""
    names: set[str] = set()
    for source, several, some, whole in IMPORT.findall(_path(module).read_text(encoding="utf-8")):
        listed = [part.split()[0] for part in (several or some or whole).split(",") if part.strip()]
        names |= {source, *(f"{source}.{name}" for name in listed)} if source else {*listed}
    own = (name for name in names if name.partition(".")[0] in ("analyses", "checks"))
    return frozenset(name for name in own if _path(name).exists())


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _kind(name: str) -> str | None:
    """Which part of a checkpoint a file is; None for what no number depends on."""
    if name.endswith((".safetensors", ".bin")):
        return "weights"
    if name == "config.json":
        return "config"
    tokenizer = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "sentencepiece")
    return "tokenizer" if name.startswith(tokenizer) or name.endswith((".model", ".tiktoken")) else None


def chosen(choice: Any) -> str:
    """A restriction to some layers or families, as text; "all" where there is none."""
    if choice is None:
        return "all"
    if isinstance(choice, range):
        return f"{choice.start}:{choice.stop}"
    return choice if isinstance(choice, str) else ",".join(str(item) for item in choice)
