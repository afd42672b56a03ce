"""The index page: claims by models, what each model is, and a link from every verdict to its evidence.

A model whose records cannot be read has its row, with the reason; the others lose nothing by it.
"""

import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from natsort import natsort_keygen

from analyses import registry
from analyses.errors import InputError
from checks.claims import written
from checks.claims.verdicts import across
from checks.claims.written import deciding
from checks.figures.numbers import apart, number
from checks.figures.strips import SYMBOLS
from checks.report import provenance, same, words
from checks.report.rendering import render
from checks.sections.sentences import short

OURS = '<meta name="generator" content="Fathom">'
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
            judged = written.read(model.folder / "gates.json")
            manifest = written.read(model.folder / "manifest.json")
        except InputError as error:
            unreadable.append({"name": model.folder.name, "reason": words.sentence(str(error))})
            continue
        href = f"{link(model.folder, out)}/report.html"
        name = model.name or judged.get("model", model.folder.name)
        readable.append(Readable(href=href, name=name, facts=model.facts, judged=judged, manifest=manifest))
    return render("index.html", summarise(readable, unreadable, heading))


def is_ours(page: Path) -> bool:
    """Whether an index may be written here: nothing is there yet, or one that was written before."""
    try:
        return not page.exists() or (page.is_file() and OURS in page.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False


def link(folder: Path, out: Path) -> str:
    """The address of a folder from a page in `out`; what a name may hold is never read as a scheme, query or anchor.

    >>> link(Path("out/a b#c"), Path("out")), link(Path("out/javascript:alert(1)"), Path("out"))
    ('a%20b%23c', 'javascript%3Aalert%281%29')
    """
    return urllib.parse.quote(os.fsencode(Path(os.path.relpath(folder, out)).as_posix()))


def summarise(models: Sequence[Readable], unreadable: Sequence[Mapping[str, str]], heading: str) -> dict[str, Any]:
    """Everything that `index.html` shows; models by family and size, and by training step as a number."""
    models = sorted(models, key=_place)
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
        "choices": words.choices([claim["verdict"] for claim in every]),
        "verdicts": words.tally([claim["verdict"] for claim in every]),
        "several": len(models) > 1,
        "families": _families(models),
        "facts": [name[:1].upper() + name[1:] for name in names],
        "models": [_model(model, names) for model in models],
        "unreadable": unreadable,
        "same": [
            *same.same_tensors([(m.judged["model"], m.manifest.get("tensors")) for m in models]),
            *same.same_shards([(m.judged["model"], m.manifest.get("tensors"), m.manifest["files"]) for m in models]),
        ],
        "groups": [
            {
                "question": section.question,
                "rows": [
                    _row(id, short(claim), _cells(id, models))
                    for id, claim in claims.items()
                    if claim["analysis"] == section.name
                ],
            }
            for section in registry.sections()
            if any(claim["analysis"] == section.name for claim in claims.values())
        ],
    }


def _family(model: Readable) -> str:
    return str(model.manifest["architecture"].get("model_type") or "")


def _place(model: Readable) -> tuple[Any, ...]:
    """Where a model stands among others: its family, its size, its step, and its name with numbers as numbers."""
    step = model.facts.get("step")
    steps = step if isinstance(step, (int, float)) else -1
    parameters = model.manifest["architecture"].get("parameters") or 0
    return _family(model), parameters, steps, natsort_key(model.name)


natsort_key = natsort_keygen()


def _families(models: Sequence[Readable]) -> list[dict[str, Any]]:
    """Neighbouring columns of one family under one heading."""
    return [{"name": name, "count": len(list(members))} for name, members in groupby(models, key=_family)]


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


def _row(id: str, said: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    verdicts = [cell["verdict"] for cell in cells if cell["verdict"]]
    return {"id": id, "short": said, "cells": cells, "verdicts": verdicts, "differs": len(set(verdicts)) > 1}


def _cells(id: str, models: Sequence[Readable]) -> list[dict[str, Any]]:
    """A claim on every model, its words corrected for the number of models."""
    claims = [next((claim for claim in model.judged["claims"] if claim["id"] == id), None) for model in models]
    return [_cell(id, *cell) for cell in zip(models, claims, across(claims), strict=True)]


def _cell(id: str, model: Readable, claim: Mapping[str, Any] | None, verdict: str | None) -> dict[str, Any]:
    """A claim's verdict on a model, and the number that decided it."""
    if claim is None or verdict is None:
        return {"verdict": None}
    decided = claim["findings"][deciding(claim)]
    observed, limit = apart(decided["observed"], decided["threshold"])
    stated = f"limit {SYMBOLS[decided['comparator']]} {limit}"
    return {
        "verdict": verdict,
        "said": f"{id} on {model.name}: {verdict}"
        + ("" if decided["observed"] is None else f", {observed}, {stated}"),
        "href": f"{model.href}#claim-{urllib.parse.quote(id)}",
    }
