"""What a received result says beside its numbers, held against what follows from them.

Three things are asked. Whether the files are there that its manifest names, whole, and no others of ours. Whether what
is said twice is said alike: key and manifest, settings and key, a command and its settings. Whether what can be had
again here (the model's tensors, its architecture, what exact maps move) is what it says. What is left can only be
believed, and `UNVERIFIED` names it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from analyses import records, registry
from checks.verify.embedded import NAMES
from checks.verify.results import LOG, Result

SIDE_FILES = ("gates.json", "report.html", "junit.xml", "summary.md")
KINDS = ("weights", "config", "tokenizer")
SHOWN = 60  # characters of a value in a line

UNVERIFIED = (
    "date, duration, machine, versions of libraries, state of the source: nothing here says what they were",
    "the model's name: whoever measures a folder calls it what they like; its tensors are verified",
)


def faults(result: Result) -> list[str]:
    """What a result contradicts in itself, a line each; [] where nothing."""
    found = [*_files(result), *_manifest(result)]
    for name, record in result.found.items():
        found += [f"{name}.json: {line}" for line in _key(name, record, result.manifest)]
    return found


def recomputed(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Fields of a manifest that were had again from the same model and are not what it says, a line each.

    `found` is the manifest of the new measurement; analyses that it lacks were not asked for.
    """
    lines = []
    for field in ("tensors", "architecture", "forward"):
        if field in found and (field != "forward" or "tokens" in found[field]):
            lines += _differences(field, recorded.get(field), found[field], skip=("devices",))
    for name, table in found.get("invariance", {}).items():
        if name in recorded["records"]:
            lines += _differences(f"invariance.{name}", recorded.get("invariance", {}).get(name), table)
    if recorded.get("revision") and found.get("revision"):
        lines += _differences("revision", recorded["revision"], found["revision"])
    same = [name for name in recorded["files"] if name in found["files"]]
    for name in same:
        lines += _differences(f"files.{name}", recorded["files"][name], found["files"][name])
    return [f"manifest.json: {line}" for line in lines]


def _files(result: Result) -> Iterator[str]:
    yield from (f"{name}: {why}" for name, why in result.damaged.items())
    named = tuple(result.manifest.get("settings", {}).get("analyses", ()))
    for name in named:
        if name not in result.manifest["records"]:
            yield f"{name}.json: missing; the manifest's settings name it and its records do not"
    for name in result.manifest["records"]:
        if name not in named:
            yield f"{name}.json: extra; the manifest's settings do not name it"
    if result.kind == "folder":
        there = {path.name for path in result.folder.iterdir()}
        arrays = {file for record in result.found.values() for file in record.get("arrays", {})}
        for name in sorted((arrays | set(SIDE_FILES)) - there):
            yield f"{name}: missing"
        ours = {*NAMES, *(f"{name}.safetensors" for name in registry.NAMES), "tolerances.json", LOG}
        known = {f"{name}.json" for name in result.manifest["records"]} | arrays
        for name in sorted(there & ours - known - {"gates.json", "controls.json", "manifest.json", *result.damaged}):
            yield f"{name}: extra; no record names it"
        for name in sorted(arrays & there):
            if not _is_own(result, name):
                yield f"{name}: garbled; it is not the file that the record was written with"
    elif result.judged is None:
        yield "gates.json: missing"
    for name, data in result.files.items():
        tree = records.parse_json(data, name)
        plain = records.as_json(tree) == data
        if not (plain or result.kind == "recorded" or data == records.canonical(tree) and _may_be_short(name, tree)):
            yield f"{name}: garbled; it is not written as Fathom writes it"


def _may_be_short(name: str, tree: Mapping[str, Any]) -> bool:
    return "shortened" in tree or name == "gates.json"


def _is_own(result: Result, name: str) -> bool:
    path = result.folder / name
    stems = [record for record in result.found.values() if name in record.get("arrays", {})]
    return path.is_file() and all(
        name == f"{record['analysis']}.safetensors" and records._sha256(path) == record["arrays"][name]
        for record in stems
    )


def _manifest(result: Result) -> Iterator[str]:
    """What the manifest says twice."""
    from checks.machine.manifest import command_of

    manifest = result.manifest
    names = {record["model"] for record in result.found.values()} | {manifest["model"]}
    if result.judged is not None and "model" in result.judged:
        names.add(result.judged["model"])
    if len(names) > 1:
        yield f"manifest.json: model: records, gates and manifest name {', '.join(sorted(map(repr, names)))}"
    for field in ("analyses", "invariance"):
        for name in sorted(set(manifest.get(field, {})) ^ set(manifest["records"])):
            yield f"manifest.json: {field}: {name} is {'extra' if name in manifest.get(field, {}) else 'missing'}"
    try:
        said = command_of(manifest["model"], manifest["revision"], manifest["settings"])
    except (KeyError, TypeError) as error:
        said = f"none (the settings lack {error})"
    if manifest["command"] != said:
        yield f"manifest.json: command: {_short(manifest['command'])}, by its settings {_short(said)}"
    libraries = {f"{name} {version}" for name, version in manifest.get("versions", {}).items()}
    for name, record in result.found.items():
        if lacking := set(str(record["key"].get("libraries", "")).split(", ")) - libraries:
            yield f"manifest.json: versions: {name} was measured with {', '.join(sorted(lacking))}"
            break


def _key(name: str, record: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
    """Parts of a record's key that are not those that the manifest gives."""
    from analyses.run import keys

    key, given = record["key"], manifest["settings"]
    reads = registry.reads_text(name)
    groups = {
        kind: records.digest({n: h for n, h in manifest["files"].items() if keys._kind(n) == kind}) for kind in KINDS
    }
    expected = {
        **groups,
        "revision": manifest["revision"] or f"sha256:{records.digest(groups)}",
        "model": manifest["model"],
        "analysis": name,
        "calibration": manifest["calibration"]["sha256"] if reads else "none",
        "dtype": given["dtype"] if reads else "float64",
        "attention": given["attention"] if reads else "none",
        "seed": given["seed"],
        "layers": given.get("layers", "all"),
        "families": given.get("families", "all"),
        "spectra": given.get("spectra", "exact"),
        **({"matching": given["matching"]} if "matching" in given else {}),  # older pages have none
        "trust_remote_code": int(bool(given.get("trust_remote_code")) and reads),
        "threads": manifest["machine"]["threads"],
        "device_class": given["device"],
        "stack": given.get("stack"),
    }
    for part, value in expected.items():
        if key.get(part) != value:
            yield f"its key says {part} {_short(key.get(part))}, the manifest {_short(value)}"
    said = manifest.get("analyses", {}).get(name)
    own = {"version": key.get("analysis_version"), "code": key.get("code"), "key": records.digest(key)}
    if said != own:
        yield "the manifest's analyses have another version, code or key"
    if record["model"] != key.get("model"):
        yield f"it is of {_short(record['model'])}, its key of {_short(key.get('model'))}"


def _differences(path: str, old: Any, new: Any, skip: tuple[str, ...] = ()) -> Iterator[str]:
    """The leaves at which two plain values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new} - set(skip)):
            yield from _differences(f"{path}.{key}", old.get(key), new.get(key))
    elif records.plain(old) != records.plain(new):
        yield f"{path}: {_short(old)}, measured here {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
