"""Synthetic outcomes, manifest and small records from which a page can be rendered, for tests of the page."""

from collections import Counter
from pathlib import Path
from typing import Any

from analyses import records, registry

COUNT = 3  # layers of the synthetic records


def finding(
    observed: float | None = 0.034, threshold: float | None = 0.1, comparator: str = "<=", **given: Any
) -> dict[str, Any]:
    margin = None
    if observed is not None and threshold is not None:
        margin = threshold - observed if comparator.startswith("<") else observed - threshold
    return {
        "path": "attention_stats.metrics.x",
        "quantity": "largest median |cos|",
        "status": "pass",
        "observed": observed,
        "interval": None,
        "comparator": comparator,
        "threshold": threshold,
        "interval_bound": None,
        "margin": margin,
        "unit": "",
        "n": {"pairs": 4},
        "where": None,
        "reason": None,
        "members": {},
        "test": False,
        "p": None,
    } | given


def outcome(id: str, verdict: str = "holds", **given: Any) -> dict[str, Any]:
    status = {"holds": "pass", "does not hold": "fail", "not applicable": "skip", "error": "error"}.get(
        verdict, "inconclusive"
    )
    return {
        "id": id,
        "kind": "absence",
        "analysis": "attention_stats",
        "claim": f"claim number {id} is a sentence",
        "row": "model",
        "status": status,
        "reason": None,
        "p": None,
        "findings": [finding(status=status)],
        "minimum": {"pairs": 4},
        "why": "a tenth of full alignment",
        "errata": "",
        "verdict": verdict,
        "verdict_reason": None,
        "raw": {"verdict": verdict, "reason": None},
        "p_adjusted": None,
        "controls": None,
    } | given


def stored(id: str, meets: str = "yes", **given: Any) -> dict[str, Any]:
    """A row about the stored coordinates."""
    row = outcome(id, "coordinate-dependent", row="stored", meets=meets, orbits=[None], **given)
    return {name: value for name, value in row.items() if name not in ("raw", "p_adjusted", "controls")}


def attention_record(layers: int = COUNT, heads: int = 2, **given: Any) -> dict[str, Any]:
    """A record of `attention_stats` with plausible numbers."""
    spread = [[0.5 + layer + head / 10 for head in range(heads)] for layer in range(layers)]
    dynamic = [
        {
            "mean_attention_entropy_per_head": row,
            "entropy_fraction_per_head": [min(1.0, v / 10) for v in row],
            "mean_logit_std_per_head": row,
            "sink_share_per_head": [0.1] * heads,
            "sink_share_early_per_head": [0.1] * heads,
            "entropy_without_sink_per_head": row,
            "logit_std_without_sink_per_head": row,
        }
        for row in spread
    ]
    return {
        "analysis": "attention_stats",
        "schema_version": 1,
        "model": "m",
        "dtype": "float32",
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": 2,
        "static": [
            {
                "metric_singvals_per_head": [[2.0, 1.0]] * heads,
                "singvals_per_head": [[3.0, 1.0]] * heads,
                "gained_singvals_per_head": [[4.0, 1.0]] * heads,
            }
        ]
        * layers,
        "dynamic": dynamic,
        "temperature": [1 / row[0] for row in spread],
        "temperature_left_out": [],
        "calibration": {
            "calibration": "text",
            "sha256": "ab" * 32,
            "sequences": 1,
            "tokens": 100,
            "tokens_left_out": 0,
            "truncated": False,
            "bos": False,
            "dtype": "float32",
            "attention": "eager",
            "devices": ["cpu"],
            "remarks": [],
        },
        "queries": 100,
        "metrics": {},
        "identities": {},
        "absent": {},
        "notes": ["a note"],
    } | given


def manifest(model: str = "m", **given: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "model": model,
        "files": {"model.safetensors": "ab" * 32},
        "architecture": {
            "model_type": "llama",
            "layers": COUNT,
            "heads": 2,
            "hidden": 16,
            "parameters": 4_022_468_096,
            "stored_dtype": "bfloat16",
        },
        "command": f"fathom run {model}",
        "date": "2026-01-02 03:04 UTC",
        "timings": {"attention_stats": 1.5},
    } | given


def gates(
    claims: list[dict[str, Any]],
    integrity: list[dict[str, Any]] = (),
    model: str = "m",
    stored: list[dict[str, Any]] = (),
) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "reading": "how to read it",
        "model": model,
        "counts": {
            "claims": Counter(claim["verdict"] for claim in claims),
            "integrity": Counter(identity["status"] for identity in integrity),
        },
        "verdicts": {"holds": "The number meets its threshold."},
        "integrity": list(integrity),
        "claims": claims,
        "stored": list(stored),
    }


def write_folder(folder: Path, judged: dict[str, Any], described: dict[str, Any], **found: dict[str, Any]) -> Path:
    """Write a model's folder as a run leaves it; `found` maps an analysis to its record."""
    records.write_json(folder / "gates.json", judged)
    for name, record in found.items():
        common = {"schema_version": 1, "analysis": name, "model": "m", "absent": {}}
        records.write_record(folder / f"{name}.json", common | record, key={"analysis": name})
    there = [name for name in registry.NAMES if (folder / f"{name}.json").exists()]
    checksums = {name: records.read_record(folder / f"{name}.json")["checksum"] for name in there}
    records.write_json(folder / "manifest.json", described | {"records": checksums})
    return folder
