"""Metrics of folded heads alone, for a twin of which no claim reads the stored ones.

Its heads are not compared between all layers, and what claims do not read is left out of the record.
"""

from collections.abc import Collection
from typing import Any

from analyses.head_grams import folded_record
from analyses.head_grams.folded_heads import folded_heads
from analyses.head_grams.head_ranks import RATIOS, ranks_asked
from analyses.head_grams.one_head import Reader
from analyses.head_grams.plane_order import PLANES
from analyses.head_grams.shards import TOP
from analyses.records import SCHEMA_VERSION, Metric
from analyses.weights.checkpoint import Checkpoint


def measure_asked(
    checkpoint: Checkpoint, read: Reader, asked: Collection[str], *, seed: int, device: str
) -> dict[str, Any]:
    """The part of a record of head_grams that holds these metrics, the same numbers as in the whole.

    Parameters
    ----------
    asked : names of metrics; those of heads as they are stored are not known here.
    """
    of_ranks = set(asked) & {*RATIOS, *PLANES}
    metrics = _folded(checkpoint, read, seed=seed) if set(asked) - of_ranks else {}
    if of_ranks:
        metrics |= ranks_asked(checkpoint, of_ranks, seed=seed, device=device)[1]
    return {
        "analysis": "head_grams",
        "schema_version": SCHEMA_VERSION,
        "model": checkpoint.name,
        "dtype": "float64",
        "metrics": metrics,
        "identities": {},
        "absent": {},
        "notes": [],
    }


def _folded(checkpoint: Checkpoint, read: Reader, *, seed: int) -> dict[str, Metric]:
    shape = checkpoint.shape
    top, layers = min(TOP, shape.head_dim, shape.hidden), range(shape.layers)
    facts = list(folded_heads(read.fold, layers, shape.layers, top, seed=seed))
    found = folded_record.metrics(folded_record.record(facts, top=top, hidden=shape.hidden), seed=seed)
    symmetry = found["all_distance_symmetry"]
    return found | folded_record.by_kind(symmetry, encoder=checkpoint.architecture.encoder)
