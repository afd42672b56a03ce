"""Figures of a model's records as drawings of their own, and the numbers behind them as CSV."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyses import registry
from checks.claims.judge import current_records
from checks.figures.export import layout
from checks.figures.geometry import Figure
from checks.report.rendering import environment
from checks.sections.network import network


def figures_of(folder: Path) -> list[Figure]:
    """Every figure that the page of this folder shows, in its order."""
    return figures_from(current_records(folder))


def figures_from(measured: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Every figure of these records, by analysis."""
    whole = {name: r for name, r in measured.items() if not r.get("error") and not r.get("skipped")}
    overview = network(measured)
    sections = [section for section in registry.sections() if section.name in whole]
    return [
        *([overview] if overview else []),
        *(figure for section in sections for figure in section.figures(whole[section.name]).values()),
    ]


def svg(figure: Figure, millimetres: int) -> str:
    """The drawing, 85 or 180 mm wide; the same figure makes the same bytes."""
    return environment().get_template("figure.svg").render(f=layout(figure, millimetres))


def numbers(figure: Figure) -> str:
    """All tables behind a figure as CSV, each after its caption; a minus is ASCII, so that programs read it."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for k, table in enumerate(figure.tables):
        if k:
            written.write("\n")
        written.write(f"# {table.caption}\n")
        writer.writerow([f"{c.name} ({c.unit})" if c.unit else c.name for c in table.columns])
        writer.writerows([cell.replace("−", "-") for cell in row] for row in table.rows)
    return written.getvalue()
