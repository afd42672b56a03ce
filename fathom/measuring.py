"""Measuring a checkpoint from Python, as `fathom run` does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from analyses.errors import InputError
from fathom.results import Result, load


def measure(
    model: str | Path,
    *,
    only: Sequence[str] = (),
    layers: range | None = None,
    families: Sequence[str] = (),
    claims: str | Path | None = None,
    controls: str = "none",
    out: str | Path | None = None,
) -> Result:
    """Measure and judge one model; the result, as `load` gives it.

    Parameters
    ----------
    model : a folder in Hugging Face's layout, a hub id, id@revision, or "reference".
    only : names of analyses; all of them unless given.
    layers : these layers only, without a step.
    families : these families of weights only, as "q_proj".
    claims : a file of claims of your own, stated before the measurement (`docs/your-own-claim.md`).
    controls : "none", "class", "coordinates", "noise" or "all".
    out : folder over all models, where records and page are kept; a temporary one, removed, unless given.

    Raises
    ------
    InputError : for a model, an option or a claim that cannot be had; the message names it and says what to do.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return _measured(model, Path(folder), only, layers, families, claims, controls)
    return _measured(model, Path(out), only, layers, families, claims, controls)


def _measured(
    model: str | Path,
    out: Path,
    only: Sequence[str],
    layers: range | None,
    families: Sequence[str],
    claims: str | Path | None,
    controls: str,
) -> Result:
    from checks.cli import parse
    from checks.verbs.measure import measure_all
    from checks.verbs.report import report_all

    if layers is not None and layers.step != 1:
        raise InputError(f"layers: {layers} has a step; give neighbouring layers, as range(0, 12)")
    given = {
        "--only": ",".join(only),
        "--layers": f"{layers.start}:{layers.stop}" if layers is not None else "",
        "--families": ",".join(families),
        "--claims": str(claims or ""),
        "--controls": controls,
        "--out": str(out),
    }
    options = [word for name, value in given.items() if value for word in (name, value)]
    arguments = parse(["run", str(model), "--quiet", *options])
    folders, _ = measure_all(arguments)
    report_all(folders, folders, arguments)
    return load(folders[0])
