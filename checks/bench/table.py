"""The bench's table: seconds, ratio to what must be done, peak memory, and how both grow."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from checks.bench import whole_runs

HEADINGS = ("stage", "seconds", "× floor", "floor", "peak MB")


def ratios(stage: Mapping[str, Any], rates: Mapping[str, float]) -> dict[str, float]:
    """Against what → seconds of the stage over seconds of that.

    Bare calls ran in turns with the stage, so theirs is the median of ratios turn by turn; operations
    are divided by the rate that this machine showed in the same run.
    """
    found = {stage["floor"]: median(stage["ratios"])} if stage["ratios"] else {}
    for name, amount in stage["operations"].items():
        found[_of(stage["floor"], name, len(stage["operations"]))] = stage["seconds"] / (amount / rates[name])
    return found


def _of(floor: str, rate: str, count: int) -> str:
    words = rate.replace("_", " ")
    work = "its own operations" if count > 1 and rate == "float64_products" else floor
    return f"{work} at the rate of {words}"


def rows(stages: Iterable[Mapping[str, Any]], rates: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Cells of the table; a stage with two floors has two rows."""
    table = []
    for stage in stages:
        name, seconds = stage["stage"], f"{stage['seconds']:.2f}"
        memory = "" if stage["peak_mb"] is None else f"{stage['peak_mb']:.0f}"
        if stage["facts"]:
            table.append((name, "", "", "; ".join(f"{k} {v:.3g}" for k, v in stage["facts"].items()), memory))
            continue
        against = ratios(stage, rates) or {"": None}
        for floor, ratio in against.items():
            table.append((name, seconds, "" if ratio is None else f"{ratio:.2f}", floor, memory))
    return table


def growth_rows(stages: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Cells of the table of growth."""
    sizes = ((s["stage"], s["layers"], s["hidden"], s["seconds"], s["peak_mb"]) for s in stages)
    return [(name, f"{depth}", f"{width}", f"{time:.2f}", f"{peak:.0f}") for name, depth, width, time, peak in sizes]


def markdown(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table whose columns also line up as plain text."""
    table = [tuple(headings), *map(tuple, cells)]
    widths = [max(len(row[i]) for row in table) for i in range(len(headings))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def render(result: Mapping[str, Any]) -> str:
    """The whole page, in Markdown."""
    rates = result["rates"]
    ceilings = [(name.replace("_", " "), f"{rate / 1e9:.1f}", _unit(name)) for name, rate in rates.items()]
    parts = [
        f"{result['machine']}; {result['size']}; {result['threads']} threads",
        markdown(("ceiling", "10⁹/s", "of"), ceilings),
        markdown(HEADINGS, rows(result["stages"], rates)),
        markdown(("analysis", "layers", "hidden", "seconds", "peak MB"), growth_rows(result["growth"])),
        markdown(whole_runs.HEADINGS, whole_runs.cells(result["whole"])),
        "Whole runs, start-up included, beside scripts of the published arithmetic (`checks/bench/published.py`); × is "
        "their ratio, in seconds of all processors and in memory.",
        "× floor: seconds over those of what must be done, measured in the same run. Peak: above the imports, of the "
        "forward pass above the loaded model. It goes through two layers; a plain pass has nothing looking on.",
    ]
    return "\n\n".join(parts) + "\n"


def _unit(name: str) -> str:
    return "bytes" if name in ("memory_read", "file_read") else "operations"
