"""A folder of records as an RO-Crate 1.2: one file of metadata, which says what lies there and how it was made.

The crate is the folder itself. Its files are data entities with their size and hash; the run is a CreateAction whose
instrument is Fathom, whose objects are the model and the text, and whose results are the records.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyses import registry
from analyses.errors import InputError
from analyses.records import as_json, write_bytes
from checks.export.answers import iso, measured_at
from checks.verify.compare import Side

NAME = "ro-crate-metadata.json"
CONTEXT = "https://w3id.org/ro/crate/1.2/context"
CONFORMS = "https://w3id.org/ro/crate/1.2"
ROOT, SOFTWARE, MODEL, TEXT, RUN = "./", "#fathom", "#model", "#text", "#run"
LICENCE = "Not stated by whoever measured; ask before the files are used further. The model's own licence is its own."
FORMATS = {
    ".json": "application/json",
    ".html": "text/html",
    ".md": "text/markdown",
    ".xml": "application/xml",
    ".jsonl": "application/jsonl",
    ".safetensors": "application/octet-stream",
}
WHAT = {
    "manifest.json": "What determined the numbers: files by hash, settings, versions, machine",
    "gates.json": "Every claim with its number, interval, limit and verdict",
    "controls.json": "What the controls of the claims showed",
    "claims.json": "Claims of one's own, as they were registered",
    "report.html": "The report, with the records inside",
    "summary.md": "The verdicts in Markdown",
    "junit.xml": "The verdicts as JUnit cases",
    "log.jsonl": "What the run said",
}


def write(side: Side, folder: Path) -> Path:
    """Write the metadata into a model's folder of records; raises InputError for a page, which is one file."""
    if not folder.is_dir():
        raise InputError(f"{folder}: a crate is a folder of records; give the folder, not its page")
    write_bytes(folder / NAME, as_json({"@context": CONTEXT, "@graph": graph(side, folder)}))
    return folder / NAME


def graph(side: Side, folder: Path) -> list[dict[str, Any]]:
    """The entities, flat."""
    manifest, at = side.manifest, iso(measured_at(side))
    files = [_file(path) for path in sorted(folder.iterdir()) if path.name in _known()]
    made = [{"@id": file["@id"]} for file in files]
    objects = [_model(manifest), *([_text(manifest["forward"])] if manifest.get("forward") else [])]
    return [
        {"@id": NAME, "@type": "CreativeWork", "about": {"@id": ROOT}, "conformsTo": {"@id": CONFORMS}},
        {
            "@id": ROOT,
            "@type": "Dataset",
            "name": f"Geometry of {manifest['model']}, measured by Fathom",
            "description": f"Records, verdicts on {len(side.judged['claims'])} claims and the report of one model.",
            "datePublished": at,
            "license": LICENCE,
            "hasPart": made,
            "mentions": {"@id": RUN},
        },
        {
            "@id": RUN,
            "@type": "CreateAction",
            "name": "Measurement",
            "description": manifest["command"],
            "endTime": at,
            "instrument": {"@id": SOFTWARE},
            "object": [{"@id": entity["@id"]} for entity in objects],
            "result": made,
        },
        {
            "@id": SOFTWARE,
            "@type": "SoftwareApplication",
            "name": "Fathom",
            "version": manifest["versions"]["fathom"],
            "softwareRequirements": [f"{name} {version}" for name, version in manifest["versions"].items()],
        },
        *objects,
        *files,
    ]


def _known() -> set[str]:
    return {*WHAT, *(f"{name}.{kind}" for name in registry.NAMES for kind in ("json", "safetensors"))}


def _file(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {
        "@id": path.name,
        "@type": "File",
        "name": WHAT.get(path.name, f"{'Arrays' if path.suffix == '.safetensors' else 'Record'} of {path.stem}"),
        "contentSize": str(len(data)),
        "encodingFormat": FORMATS[path.suffix],
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _model(manifest: Mapping[str, Any]) -> dict[str, Any]:
    on_hub = {"url": f"https://huggingface.co/{manifest['model']}", "version": manifest["revision"]}
    return {
        "@id": MODEL,
        "@type": "CreativeWork",
        "name": manifest["model"],
        "description": f"Weights, {manifest['architecture'].get('parameters', 0):,} parameters",
        "identifier": f"sha256:{manifest['tensors']}",
        **(on_hub if manifest["revision"] else {}),
    }


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@id": TEXT,
        "@type": "CreativeWork",
        "name": text["calibration"],
        "description": f"The text that was read, {text['tokens']:,} tokens",
        "identifier": f"sha256:{text['sha256']}",
    }
