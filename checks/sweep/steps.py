"""Claims over training: one page over the checkpoints of a series that are steps of one training.

Every number that a claim is decided by, drawn over the steps with its interval and its limit; the mark says the
verdict. Steps that hold the very same tensors are named: public series have served one checkpoint under many names.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses import records, registry
from analyses.errors import InputError
from checks.claims import written
from checks.claims.written import deciding
from checks.figures.numbers import number
from checks.report import same, words
from checks.report.index import link
from checks.report.rendering import render
from checks.sections.sentences import short
from checks.sweep.plan import Element, Plan
from checks.sweep.steps_drawn import Step, claim_of, figure, over, spark

PAGE = "steps.html"


def write(plan: Plan) -> Path | None:
    """Write the page over the series of a plan that have two steps or more; None if there is none."""
    found: dict[str, list[Step]] = {}
    for element in plan.checkpoints:
        if element.source.step is not None and (step := _step(plan.out, element)):
            found.setdefault(element.source.series, []).append(step)
    series = {name: sorted(steps, key=lambda s: s.step) for name, steps in found.items() if len(steps) > 1}
    if not series:
        return None
    page = plan.out / PAGE
    records.write_bytes(page, render("steps.html", summarise(series)).encode(errors="replace"))
    return page


def facts(plan: Plan) -> dict[str, dict[str, float | str]]:
    """Folder's name → what the index says of it beside its verdicts: its step, and whose tensors it repeats."""
    facts_of: dict[str, dict[str, float | str]] = {}
    seen: dict[str, str] = {}
    for element in plan.checkpoints:
        row: dict[str, float | str] = {}
        if element.source.step is not None:
            row["step"] = element.source.step
        if content := _manifest(plan.out / element.source.slug).get("tensors"):
            if content in seen:
                row["content"] = f"as {seen[content]}"
            seen.setdefault(content, _short(element))
        facts_of[element.source.slug] = row
    return facts_of


def _short(element: Element) -> str:
    return element.source.given.rpartition("@")[2].rpartition("/")[2]


def _manifest(folder: Path) -> Mapping[str, Any]:
    try:
        return written.read(folder / "manifest.json")
    except InputError:
        return {}


def _step(out: Path, element: Element) -> Step | None:
    folder = out / element.source.slug
    try:
        judged = written.read(folder / "gates.json")
    except InputError:
        return None  # not measured yet; the index says so
    return Step(
        step=element.source.step,
        name=_short(element),
        href=f"{link(folder, out)}/report.html",
        content=_manifest(folder).get("tensors"),
        files=_manifest(folder).get("files", {}),
        claims={claim["id"]: claim for claim in judged["claims"]},
    )


def summarise(series: Mapping[str, Sequence[Step]]) -> dict[str, Any]:
    """Everything that `steps.html` shows."""
    steps = sum(map(len, series.values()))
    training = words.count(len(series), "training run")
    return {
        "answer": f"{training}, {words.count(steps, 'checkpoint')}. Each verdict links to its evidence.",
        "caution": words.caution([claim for run in series.values() for step in run for claim in step.claims.values()]),
        "series": [_series(k, name, steps) for k, (name, steps) in enumerate(series.items())],
    }


def _series(k: int, name: str, steps: Sequence[Step]) -> dict[str, Any]:
    every = list(dict.fromkeys(id for step in steps for id in step.claims))
    ids = [id for id in every if any(step.claims[id]["status"] != "skip" for step in steps if id in step.claims)]
    asked = [step.claims[id]["verdict"] for step in steps for id in ids if id in step.claims]
    sections = [
        {"question": section.question, "ids": [id for id in ids if claim_of(steps, id)["analysis"] == section.name]}
        for section in registry.sections()
    ]
    groups = [
        {
            "question": section["question"],
            "rows": [_row(steps, id) for id in section["ids"]],
            "figure": figure(f"series-{k}-{n}", f"{name}, {section['question']}", steps, section["ids"]),
        }
        for n, section in enumerate(sections)
        if section["ids"]
    ]
    return {
        "id": f"series-{k}",
        "name": name,
        "axis": f"over steps ({over([s.step for s in steps]).kind})",
        "steps": [{"step": number(step.step), "href": step.href, "name": step.name} for step in steps],
        "verdicts": [word for word in words.VERDICTS if word in asked],
        "unasked": ", ".join(id for id in every if id not in ids),
        "same": [
            *same.same_tensors([(step.name, step.content) for step in steps]),
            *same.same_shards([(step.name, step.content, step.files) for step in steps]),
        ],
        "groups": groups,
    }


def _row(steps: Sequence[Step], id: str) -> dict[str, Any]:
    cells = []
    for step in steps:
        verdict = step.claims[id]["verdict"] if id in step.claims else None
        said = f"{id} at {step.name}: {verdict}{_number(step.claims[id]) if verdict else ''}"
        cells.append({"step": step.name, "verdict": verdict, "said": said, "href": f"{step.href}#claim-{id}"})
    held = held_over(steps, id)
    return {"id": id, "short": short(claim_of(steps, id)), "spark": spark(steps, id), "cells": cells, "held": held}


def held_over(steps: Sequence[Step], id: str) -> str:
    """The first and the last step at which a claim holds, in words; with how many of the steps between it does."""
    holding = [k for k, step in enumerate(steps) if id in step.claims and step.claims[id]["verdict"] == "holds"]
    if not holding:
        return "never holds"
    first, last = holding[0], holding[-1]
    if first == last:
        return f"holds at step {number(steps[first].step)}"
    between = last - first + 1
    all_of = "" if len(holding) == between else f", at {len(holding)} of {between}"
    return f"holds from step {number(steps[first].step)} to {number(steps[last].step)}{all_of}"


def _number(claim: Mapping[str, Any]) -> str:
    observed = claim["findings"][deciding(claim)]["observed"]
    return "" if observed is None else f", {number(observed)}"
