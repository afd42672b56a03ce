"""The index page: claims by models, what each model is, and a link from every verdict to its evidence.

A model whose records cannot be read has its row, with the reason; the others lose nothing by it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyses import records, registry
from analyses.errors import InputError
from checks.claims.gate import DECISIVE
from checks.claims.verdicts import across
from checks.figures.numbers import apart, number
from checks.figures.strips import SYMBOLS
from checks.report import provenance, words
from checks.report.rendering import render

HEADING = "Claims about layer geometry, model by model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """One model of an index."""

    folder: Path
    name: str = ""  # where the model's own does not tell it from the others, as of revisions
    facts: Mapping[str, float | str] = field(default_factory=dict)  # columns of its own, such as {"step": 1000}
    unreadable: str = ""  # why its records cannot be read, where they cannot


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """A model with what its folder says of it."""

    href: str
    name: str
    facts: Mapping[str, float | str]
    judged: Mapping[str, Any]
    manifest: Mapping[str, Any]


def render_index(models: Sequence[Path | Indexed], out: Path, *, heading: str = HEADING) -> str:
    """Claims × models over these folders; links are relative to the folder `out`."""
    readable, unreadable = [], []
    for given in models:
        model = given if isinstance(given, Indexed) else Indexed(folder=given)
        try:
            if model.unreadable:
                raise InputError(model.unreadable)
            judged = records.read_json(model.folder / "gates.json")
            manifest = records.read_json(model.folder / "manifest.json")
        except InputError as error:
            unreadable.append({"name": model.folder.name, "reason": words.sentence(str(error))})
            continue
        href = f"{Path(os.path.relpath(model.folder, out)).as_posix()}/report.html"
        name = model.name or judged["model"]
        readable.append(Readable(href=href, name=name, facts=model.facts, judged=judged, manifest=manifest))
    return render("index.html", summarise(readable, unreadable, heading))


def summarise(models: Sequence[Readable], unreadable: Sequence[Mapping[str, str]], heading: str) -> dict[str, Any]:
    """Everything that `index.html` shows."""
    claims: dict[str, Mapping[str, Any]] = {}
    for model in models:
        claims |= {claim["id"]: claim for claim in model.judged["claims"] if claim["id"] not in claims}
    every = [claim for model in models for claim in model.judged["claims"]]
    answer = f"{words.count(len(claims), 'claim')}, {words.count(len(models), 'model')}."
    names = list(dict.fromkeys(name for model in models for name in model.facts))
    return {
        "heading": heading,
        "answer": f"{answer} Each verdict links to its evidence." if models else "No model could be read.",
        "caution": words.caution(every),
        "columns": len(models) + 1,
        "choices": words.choices([claim["verdict"] for claim in every]),
        "facts": [name[:1].upper() + name[1:] for name in names],
        "models": [_model(model, names) for model in models],
        "unreadable": unreadable,
        "same": words.same_tensors([(m.judged["model"], m.manifest.get("tensors")) for m in models]),
        "groups": [
            {
                "question": section.question,
                "rows": [
                    _row(id, claim["claim"], _cells(id, models))
                    for id, claim in claims.items()
                    if claim["analysis"] == section.name
                ],
            }
            for section in registry.sections()
            if any(claim["analysis"] == section.name for claim in claims.values())
        ],
    }


def _model(model: Readable, names: Sequence[str]) -> dict[str, Any]:
    judged, manifest = model.judged, model.manifest
    verdicts = [claim["verdict"] for claim in judged["claims"]]
    facts = [(name[:1].upper() + name[1:], model.facts.get(name, "")) for name in names]
    return {
        "name": model.name,
        "href": model.href,
        "facts": [
            {"name": name, "text": number(v) if isinstance(v, (int, float)) else v, "value": v} for name, v in facts
        ],
        "date": manifest.get("date") or "",
        "revision": provenance.revision(manifest),
        "dtype": provenance.dtype(manifest),
        "architecture": provenance.architecture(manifest["architecture"]),
        "parameters": manifest["architecture"].get("parameters") or "",
        "integrity": words.identities(judged["integrity"]),
        "broken": sum(outcome["status"] not in ("pass", "skip") for outcome in judged["integrity"]),
        "verdicts": words.tally(verdicts),
        "holds": verdicts.count("holds"),
    }


def _row(id: str, claim: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    verdicts = [cell["verdict"] for cell in cells if cell["verdict"]]
    return {"id": id, "claim": words.sentence(claim), "cells": cells, "verdicts": verdicts}


def _cells(id: str, models: Sequence[Readable]) -> list[dict[str, Any]]:
    """A claim on every model, its words corrected for the number of models."""
    claims = [next((claim for claim in model.judged["claims"] if claim["id"] == id), None) for model in models]
    return [_cell(id, *cell) for cell in zip(models, claims, across(claims), strict=True)]


def _cell(id: str, model: Readable, claim: Mapping[str, Any] | None, verdict: str | None) -> dict[str, Any]:
    """A claim's verdict on a model, and the number that decided it."""
    if claim is None or verdict is None:
        return {"model": model.name, "verdict": None, "rank": "", "observed": "", "href": ""}
    decided = min(claim["findings"], key=lambda finding: DECISIVE.index(finding["status"]))
    observed, limit = apart(decided["observed"], decided["threshold"])
    stated = f"limit {SYMBOLS[decided['comparator']]} {limit}"
    return {
        "model": model.name,
        "verdict": verdict,
        "rank": words.VERDICTS.index(verdict),
        "observed": "" if decided["observed"] is None else f"{observed}, {stated}",
        "href": f"{model.href}#claim-{id}",
    }
