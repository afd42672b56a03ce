"""Numbers of `delta_svd` by layer, and what is drawn of them."""

import statistics
from collections.abc import Sequence

from checks.figures.geometry import Value
from checks.sections.section import Record


def by_layer(record: Record, key: str, part: str | None = None) -> list[Value]:
    """One number of every layer; `part` names one of its spectra."""
    layers = record["layers"] if part is None else [layer[part] for layer in record["layers"]]
    return [None if layer is None else layer[key] for layer in layers]


def median(values: Sequence[Value]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
