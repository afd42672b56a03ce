"""A result as a record of Every Eval Ever (arXiv:2606.14516), schema 0.3.0: one log a model, one result a claim.

The schema is made for scores of benchmarks. A claim's number is such a score with a stated limit; the verdict, which is
what a reader should take away, stands in the details of the score, and so does the limit in those of the metric.
"""

import hashlib
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyses import registry
from analyses.records import as_json, write_bytes
from checks.export.answers import Answer, answers, iso, measured_at
from checks.verify.compare import Side

SCHEMA = "0.3.0"
COLLECTION = "fathom"
LEVEL = 0.9  # of every interval
NOT_STATED = "not stated"


def write(side: Side, out: Path, *, organization: str | None) -> Path:
    """Write the record where the project's database keeps one: data/fathom/DEVELOPER/MODEL/UUID.json, under `out`.

    The UUID is made of the content, so that the same result has the same file.
    """
    content = as_json(log(side, organization=organization))
    name = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=4)
    owner, _, model = side.manifest["model"].rpartition("/")
    path = out / "data" / COLLECTION / _part(owner or "unknown") / _part(model) / f"{name}.json"
    write_bytes(path, content)
    return path


def _part(name: str) -> str:
    """A name as one part of a path."""
    return re.sub(r"[^\w.-]", "_", name).strip(".") or "_"


def log(side: Side, *, organization: str | None) -> dict[str, Any]:
    """The record; claims without a number have no place in it, since its scores are numbers."""
    manifest, at = side.manifest, measured_at(side)
    epoch = str(int(at.timestamp()))
    results = [_result(one, side) for one in answers(side) if one.value is not None]
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{COLLECTION}/{manifest['model']}/{manifest['tensors'][:12]}/{epoch}",
        "evaluation_timestamp": iso(at),
        "retrieved_timestamp": epoch,
        "source_metadata": {
            "source_name": "Fathom",
            "source_type": "evaluation_run",
            "source_organization_name": organization or NOT_STATED,
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": "fathom-geometry",
            "version": manifest["versions"]["fathom"],
            "additional_details": {"command": manifest["command"], "claim_set": str(side.judged.get("claim_set", 1))},
        },
        "model_info": _model(manifest),
        "evaluation_results": results,
    }


def _model(manifest: Mapping[str, Any]) -> dict[str, Any]:
    owner, _, _ = manifest["model"].rpartition("/")
    on_hub = manifest["revision"] is not None
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights" if on_hub else "unknown",
        "weights_sha256": manifest["tensors"],
        "dtype": manifest["settings"]["dtype"],
        **({"revision": manifest["revision"]} if on_hub else {}),
    }
    return {
        "name": manifest["model"],
        "id": manifest["model"],
        **({"developer": owner} if owner else {}),
        "inference_engine": {"name": "transformers", "version": manifest["versions"]["transformers"]},
        "additional_details": details,
    }


def _result(one: Answer, side: Side) -> dict[str, Any]:
    score: dict[str, Any] = {"score": one.value, "details": {"verdict": one.verdict}}
    if one.why:
        score["details"]["reason"] = one.why
    if one.interval:
        ends = {"lower": one.interval[0], "upper": one.interval[1], "confidence_level": LEVEL}
        score["uncertainty"] = {"confidence_interval": ends}
    return {
        "evaluation_result_id": one.id,
        "evaluation_name": f"Fathom {one.id}",
        "source_data": _data(one, side.manifest),
        "metric_config": {
            "evaluation_description": one.sentence,
            "metric_id": f"{COLLECTION}.{one.id}",
            "metric_name": one.quantity,
            **({"metric_unit": one.unit} if one.unit else {}),
            "lower_is_better": one.comparator.startswith("<"),
            "score_type": "continuous",
            "min_score": None,
            "max_score": None,
            "additional_details": {
                "class": one.kind,
                "limit": "none" if one.threshold is None else f"{one.comparator} {one.threshold!r}",
                "lower_is_better": "says on which side of its limit the claim holds; nothing here is good or bad",
            },
        },
        "score_details": score,
    }


def _data(one: Answer, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What was read: the text for what depends on a forward pass, else the weights alone."""
    text = manifest.get("forward") if registry.reads_text(one.analysis) else None
    name, digest = (text["calibration"], text["sha256"]) if text else ("the model's weights", manifest["tensors"])
    return {"dataset_name": name, "source_type": "other", "additional_details": {"sha256": digest}}
