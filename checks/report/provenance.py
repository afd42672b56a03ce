"""Provenance in words: the model in one line, the run's manifest in tables."""

import shlex
from collections.abc import Mapping
from typing import Any

from checks.figures.numbers import number

DIGEST = 12  # characters of a digest that are enough to tell two models apart
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}


def architecture(facts: Mapping[str, Any]) -> list[str]:
    """The model in one line; facts that the manifest lacks are left out."""
    wanted = (
        ("model_type", "{}"),
        ("layers", "{} layers"),
        ("heads", "{} heads"),
        ("kv_heads", "{} key/value heads"),
        ("head_dim", "head dimension {}"),
        ("hidden", "hidden {}"),
        ("feed_forward", "feed-forward {}"),
        ("experts", "{} experts"),
        ("parameters", "{} parameters"),
        ("stored_dtype", "{}"),
    )
    line = []
    for key, words_ in wanted:
        if value := facts.get(key):
            shown = _millions(value) if key == "parameters" else DTYPES.get(value, value)
            line.append(words_.format(number(shown) if isinstance(shown, int) else shown))
    return line


def _millions(count: int) -> str:
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if count >= size:
            return number(count / size) + word
    return number(count)


def origin(manifest: Mapping[str, Any]) -> list[str]:
    line = []
    if manifest.get("revision"):
        line.append(f"revision {manifest['revision']}")
    if manifest.get("date"):
        line.append(f"measured {manifest['date']}")
    return line + list(manifest.get("architecture", {}).get("notes", ()))


def tables(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The manifest as tables: one for its plain values, one for every mapping in it."""
    plain = {k: v for k, v in manifest.items() if not isinstance(v, Mapping) and k != "schema_version"}
    written = [{"title": "Run", "rows": _rows(plain), "wide": True}]
    for key, value in manifest.items():
        if isinstance(value, Mapping) and value and key not in ("absent", "invariance"):  # told in the sections
            written.append(
                {
                    "title": TITLES.get(key, key.replace("_", " ").capitalize()),
                    "rows": _rows(value),
                    "wide": key == "files",
                }
            )
    return written


TITLES = {
    "files": "Files read, with their SHA-256",
    "timings": "Time taken (seconds)",
    "forward": "Forward pass",
    "calibration": "Calibration text",
}


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        name = prefix + (key if "." in key else key.replace("_", " "))
        if isinstance(value, Mapping):
            rows += _rows(value, f"{name} · ")
        elif value is not None:
            rows.append((name, _written(value)))
    return rows


def _written(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return number(value)
        case list():
            return ", ".join(_written(item) for item in value)
    return str(value)


def dtype(manifest: Mapping[str, Any]) -> str:
    """Of the weights as stored, and of the forward pass: "bf16, run in fp32"."""
    stored = (manifest.get("architecture") or {}).get("stored_dtype")
    run = (manifest.get("forward") or {}).get("dtype") or (manifest.get("settings") or {}).get("dtype")
    stored, run = (DTYPES.get(name, name) for name in (stored, run))
    if stored and run and stored != run:
        return f"{stored}, run in {run}"
    return stored or run or ""


def again(manifest: Mapping[str, Any], analysis: str) -> str:
    """The command that measures one analysis of this page again."""
    try:
        words = shlex.split(manifest["command"])
    except ValueError:  # a quote without its other half: no command of ours
        return manifest["command"]
    if "--only" in words:
        at = words.index("--only")
        del words[at : at + 2]
    return shlex.join([*words, "--only", analysis])


def revision(manifest: Mapping[str, Any]) -> str:
    """The hub's commit, or for a folder the start of the digest of its tensors; "" where neither is known."""
    if manifest.get("revision"):
        return str(manifest["revision"])
    tensors = manifest.get("tensors")
    return f"tensors {tensors[:DIGEST]}" if isinstance(tensors, str) else ""
