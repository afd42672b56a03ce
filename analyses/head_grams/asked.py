"""Metrics of head_grams that are asked for alone, for a twin whose claims read no others.

Stored heads are compared between all layers, and folded ones with those of the next layer, only where a metric that is
asked for is made of it; what claims do not read is left out of the record.
"""

from collections.abc import Collection
from typing import Any

from analyses.head_grams import folded_record
from analyses.head_grams.folded_heads import folded_heads
from analyses.head_grams.head_ranks import RATIOS, ranks_asked
from analyses.head_grams.one_head import Reader
from analyses.head_grams.plane_order import PLANES
from analyses.head_grams.shards import TOP
from analyses.head_grams.stored_heads import OF_STORED_HEADS, all_layers, stored_heads, stored_metrics
from analyses.records import SCHEMA_VERSION, Metric
from analyses.weights.checkpoint import Checkpoint


def measure_asked(
    checkpoint: Checkpoint, read: Reader, asked: Collection[str], *, seed: int, device: str
) -> dict[str, Any]:
    """The part of a record of head_grams that holds these metrics, the same numbers as in the whole.

    asked : names of metrics; others that are made of the same parts may come with them.
    """
    of_stored, of_ranks = (set(asked) & set(names) for names in (OF_STORED_HEADS, (*RATIOS, *PLANES)))
    metrics: dict[str, Metric] = {}
    if of_folded := set(asked) - of_stored - of_ranks:
        metrics |= _folded(checkpoint, read, of_folded, seed=seed)
    if of_stored:
        facts, products, _ = all_layers(read, checkpoint.shape, seed=seed, with_folded=False)
        metrics |= stored_metrics(stored_heads(facts, products, seed=seed), seed=seed)
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


def _folded(checkpoint: Checkpoint, read: Reader, asked: Collection[str], *, seed: int) -> dict[str, Metric]:
    shape = checkpoint.shape
    top, layers = min(TOP, shape.head_dim, shape.hidden), range(shape.layers)
    compared = not folded_record.OF_PAIRS.isdisjoint(asked)
    facts = list(folded_heads(read.fold, layers, shape.layers, top, seed=seed, compared=compared))
    record = folded_record.record(facts, top=top, hidden=shape.hidden)
    found = folded_record.metrics(record, seed=seed)
    symmetry = found["all_distance_symmetry"]
    found |= folded_record.by_kind(symmetry, encoder=checkpoint.architecture.encoder)
    return {name: metric for name, metric in found.items() if compared or name not in folded_record.OF_PAIRS}
