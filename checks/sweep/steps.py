"""How do claims fare over training? One page over the checkpoints of a series that are steps of one training.

Every number that a claim is decided by, drawn over the steps with its interval and its limit; the mark says the
verdict. Steps that hold the very same tensors are named: public series have served one checkpoint under many names.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses import records
from analyses.errors import InputError
from checks import axes, words
from checks.axes import Axis
from checks.figures import THIRD, Column, Figure, Key, Panel, Table
from checks.numbers import number
from checks.plots import Plot
from checks.rendering import render
from checks.sections import SECTIONS
from checks.strips import SYMBOLS
from checks.sweep.plan import Element, Plan

PAGE = "steps.html"
SHAPES = {
    "holds": "circle",
    "does not hold": "square",
    "undecided": "triangle",
    "coordinate-dependent": "diamond",
    "uninformative": "ring",
    "error": "cross",
}
"""As the signs of the verdicts everywhere else; a claim that does not apply has no number to draw."""

WIDE = 50.0  # last step over the first after 0: beyond, steps are drawn on a log axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One checkpoint of a series."""

    step: int
    name: str  # as asked for
    href: str  # of its page
    content: str | None  # digest of its tensors
    claims: Mapping[str, Mapping[str, Any]]  # claim id → outcome


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
    told: dict[str, dict[str, float | str]] = {}
    seen: dict[str, str] = {}
    for element in plan.checkpoints:
        own: dict[str, float | str] = {}
        if element.source.step is not None:
            own["step"] = element.source.step
        if content := _content(plan.out / element.source.slug):
            if content in seen:
                own["content"] = f"as {seen[content]}"
            seen.setdefault(content, _short(element))
        told[element.source.slug] = own
    return told


def _short(element: Element) -> str:
    return element.source.given.rpartition("@")[2].rpartition("/")[2]


def _content(folder: Path) -> str | None:
    try:
        return records.read_json(folder / "manifest.json").get("tensors")
    except InputError:
        return None


def _step(out: Path, element: Element) -> Step | None:
    folder = out / element.source.slug
    try:
        judged = records.read_json(folder / "gates.json")
    except InputError:
        return None  # not measured yet; the index says so
    return Step(
        step=element.source.step,
        name=_short(element),
        href=f"{Path(os.path.relpath(folder, out)).as_posix()}/report.html",
        content=_content(folder),
        claims={claim["id"]: claim for claim in judged["claims"]},
    )


def summarise(series: Mapping[str, Sequence[Step]]) -> dict[str, Any]:
    """Everything that `steps.html` shows."""
    steps = sum(map(len, series.values()))
    training = words.count(len(series), "training run")
    return {
        "answer": f"{training}, {words.count(steps, 'checkpoint')}. Each verdict links to its evidence.",
        "series": [_series(k, name, steps) for k, (name, steps) in enumerate(series.items())],
    }


def _series(k: int, name: str, steps: Sequence[Step]) -> dict[str, Any]:
    every = list(dict.fromkeys(id for step in steps for id in step.claims))
    ids = [id for id in every if any(step.claims[id]["status"] != "skip" for step in steps if id in step.claims)]
    asked = [step.claims[id]["verdict"] for step in steps for id in ids if id in step.claims]
    sections = [
        {"question": section.question, "ids": [id for id in ids if _claim(steps, id)["analysis"] == section.name]}
        for section in SECTIONS
    ]
    groups = [
        {
            "question": section["question"],
            "rows": [_row(steps, id) for id in section["ids"]],
            "figure": _figure(f"series-{k}-{n}", steps, section["ids"]),
        }
        for n, section in enumerate(sections)
        if section["ids"]
    ]
    return {
        "id": f"series-{k}",
        "name": name,
        "columns": len(steps) + 1,
        "steps": [{"step": number(step.step), "href": step.href, "name": step.name} for step in steps],
        "verdicts": [word for word in words.VERDICTS if word in asked],
        "unasked": ", ".join(id for id in every if id not in ids),
        "same": words.same_tensors([(step.name, step.content) for step in steps]),
        "groups": groups,
    }


def _claim(steps: Sequence[Step], id: str) -> Mapping[str, Any]:
    return next(step.claims[id] for step in steps if id in step.claims)


def _row(steps: Sequence[Step], id: str) -> dict[str, Any]:
    cells = []
    for step in steps:
        verdict = step.claims[id]["verdict"] if id in step.claims else None
        said = f"{id} at {step.name}: {verdict}"
        cells.append({"step": step.name, "verdict": verdict, "said": said, "href": f"{step.href}#claim-{id}"})
    return {"id": id, "claim": words.sentence(_claim(steps, id)["claim"]), "cells": cells}


# --- drawings -----------------------------------------------------------------------------------------------------


def _figure(id: str, steps: Sequence[Step], ids: Sequence[str]) -> Figure | None:
    """A panel for every number that decides one of these claims, where two steps have it."""
    panels, columns, used = [], [], set()
    for claim in ids:
        for k, finding in enumerate(_claim(steps, claim)["findings"]):
            track = [_finding(step, claim, k) for step in steps]
            if sum(f is not None and f["observed"] is not None for f in track) < 2:
                continue
            panels.append(_panel(claim, finding, steps, track))
            columns.append((f"{claim}: {finding['quantity']}", [_written(f) for f in track]))
            used |= {step.claims[claim]["verdict"] for step, f in zip(steps, track, strict=True) if f}
    if not panels:
        return None
    rows = tuple((number(s.step), *(cells[i] for _, cells in columns)) for i, s in enumerate(steps))
    named = tuple(Column(name=name) for name, _ in columns)
    table = Table(columns=(Column(name="Step"), *named), rows=rows, caption="The numbers, step by step")
    keys = [Key(name=v, tone="s0", kind="mark", shape=shape) for v, shape in SHAPES.items() if v in used]
    return Figure(
        id=id,
        caption="Over training: the number, its 90 % interval, and the limit that was stated beforehand.",
        panels=tuple(panels),
        keys=(*keys, Key(name="limit", tone="limit", kind="dash")),
        tables=(table,),
        size="third",
    )


def _finding(step: Step, claim: str, k: int) -> Mapping[str, Any] | None:
    return step.claims[claim]["findings"][k] if claim in step.claims else None


def _written(finding: Mapping[str, Any] | None) -> str:
    return number(finding["observed"] if finding else None)


def _panel(claim: str, finding: Mapping[str, Any], steps: Sequence[Step], track: Sequence[Any]) -> Panel:
    at = [step.step for step in steps]
    values = [f["observed"] if f else None for f in track]
    ends = [(f["interval"] if f else None) or (None, None) for f in track]
    lows, highs = [low for low, _ in ends], [high for _, high in ends]
    limit = finding["threshold"]
    unit = finding["unit"] or ""
    y = axes.linear([*values, *lows, *highs, limit], label=unit, count=4)
    plot = Plot(x=_over(at), y=y, width=THIRD, height=190)
    xs = [_drawn(step, plot.x) for step in at]
    plot.band(xs, lows, highs, "s0 pale")
    plot.line(xs, values, "s0")
    if limit is not None:
        plot.level(limit, "limit")
    for verdict, shape in SHAPES.items():
        mine = [i for i, step in enumerate(steps) if claim in step.claims and step.claims[claim]["verdict"] == verdict]
        tips = [f"step {number(at[i])}: {number(values[i])} {unit}, {verdict}" for i in mine]
        plot.points([xs[i] for i in mine], [values[i] for i in mine], "s0", shape=shape, tips=tips)
    there = [value for value in values if value is not None]
    told = f"limit {SYMBOLS[finding['comparator']]} {number(limit)}; " if limit is not None else ""
    desc = f"{told}from {number(there[0])} at the first step that has it to {number(there[-1])} at the last."
    return plot.panel(f"{claim}: {finding['quantity']}", desc)


def _over(steps: Sequence[int]) -> Axis:
    positive = [step for step in steps if step > 0]
    if positive and max(positive) > WIDE * min(positive):
        # Step 0 has no place on a log axis; it stands at half of the first after it, beside which its tick is.
        return axes.logarithmic([*positive, min(positive) / 2] if 0 in steps else positive, label="step")
    return axes.linear(steps, label="step", count=4)


def _drawn(step: int, axis: Axis) -> float:
    return axis.low if axis.kind == "log" and step == 0 else step
