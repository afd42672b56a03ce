"""What a repository of a model on the Hugging Face hub takes: its evaluation results, and a section of its card.

The hub reads `.eval_results/*.yaml` (hub-docs, eval_results.yaml): an entry names a task of a benchmark, which is a
dataset of the hub, and a number. Here a claim is a task, with its id. The hub shows an entry where a benchmark of that
name lists the task; the section of the card needs none.
"""

from pathlib import Path
from typing import Any

import yaml

from analyses.records import write_bytes
from checks.export.answers import Answer, answers, iso, measured_at
from checks.figures.numbers import number
from checks.figures.strips import SYMBOLS
from checks.report.markdown import escape
from checks.verify.compare import Side

RESULTS, CARD = ".eval_results/fathom.yaml", "model_card_section.md"


def write(side: Side, out: Path, *, benchmark: str) -> list[Path]:
    """Write both files under `out`, which is laid out as the repository is; returns their paths.

    Parameters
    ----------
    benchmark : the hub's dataset whose tasks the claims are, "owner/name".
    """
    text = yaml.safe_dump(entries(side, benchmark), sort_keys=False, allow_unicode=True, width=120)
    write_bytes(out / RESULTS, text.encode())
    write_bytes(out / CARD, section(side).encode())
    return [out / RESULTS, out / CARD]


def entries(side: Side, benchmark: str) -> list[dict[str, Any]]:
    """An entry for each claim about the model that has a number; one without a number has no entry."""
    date = iso(measured_at(side))
    return [
        {
            "dataset": {"id": benchmark, "task_id": one.id},
            "value": one.value,
            "date": date,
            "notes": f"{_told(one)} (Fathom {side.manifest['versions']['fathom']})",
        }
        for one in answers(side)
        if one.value is not None
    ]


def _told(one: Answer) -> str:
    limit, ends = _limit(one), _interval(one)
    return f"{one.verdict}: {one.quantity}{limit and f', limit {limit}'}{ends and f', 90 % interval {ends}'}"


def _limit(one: Answer) -> str:
    return "" if one.threshold is None else f"{SYMBOLS[one.comparator]} {number(one.threshold)} {one.unit}".strip()


def _interval(one: Answer) -> str:
    return f"{number(one.interval[0])} to {number(one.interval[1])}" if one.interval else ""


def _number(one: Answer) -> str:
    return "" if one.value is None else f"{number(one.value)} {one.unit}".strip()


def section(side: Side) -> str:
    """The section of the model card in Markdown: how it was measured, and a row for each claim."""
    manifest, settings = side.manifest, side.manifest["settings"]
    rows = ["| claim | | verdict | number | 90 % interval | limit |", "| --- | --- | --- | --- | --- | --- |"]
    for one in answers(side):
        cells = one.id, one.sentence, one.verdict, _number(one), _interval(one), _limit(one)
        rows.append(f"| {' | '.join(escape(cell) or '–' for cell in cells)} |")
    text = manifest.get("forward") or {}
    read = f", on {text['tokens']:,} tokens of {escape(text['calibration'])}" if text else ""
    how = f"Measured on {iso(measured_at(side))[:10]} with Fathom "
    how += f"{manifest['versions']['fathom']} in {settings['dtype']}{read}; weights sha256 "
    how += f"{manifest['tensors'][:12]}. A number is that of the condition that decides its claim; limits were stated "
    how += "before the model was looked at."
    return "\n".join(["## Geometry", "", how, "", *rows, ""])
