"""The shards of an analysis of one large checkpoint: their list, one of them measured, and one read back.

`analyses.null_residual.shards` and `analyses.head_grams.shards` say what a shard is, and why the record does not depend
on how many there are. The analysis itself goes over the same list, and measures those that are not given to it.
"""

from typing import Any

import torch

from analyses import head_grams
from analyses.forward.inputs import Settings, Skipped, arithmetic_device
from analyses.head_grams import shards as head_shards
from analyses.null_residual import shards as layer_shards
from analyses.null_residual.asked import compared_parts
from analyses.null_residual.pairs import settled
from analyses.run.suite import restricted
from analyses.weights.checkpoint import Checkpoint

ANALYSES = ("null_residual", "head_grams")
"""Those whose work grows with the square of a model's width, or of its depth."""

Stored = tuple[dict[str, Any], dict[str, torch.Tensor]]
"""A shard on disk: what is JSON of it, and what lies in the safetensors file beside."""


def pieces(analysis: str, checkpoint: Checkpoint, settings: Settings) -> list[range]:
    """The layers of each shard, from the headers alone; none where the settings leave nothing to measure."""
    try:
        view = restricted(analysis, checkpoint, settings)
    except Skipped:
        return []
    if analysis == "null_residual":
        return layer_shards.layer_shards(view)
    return head_shards.head_shards(view.shape)


def make(analysis: str, checkpoint: Checkpoint, layers: range, settings: Settings) -> Stored:
    """Measure the shard of these layers."""
    view, device, seed = restricted(analysis, checkpoint, settings), arithmetic_device(settings), settings.seed
    if analysis == "null_residual":
        spectra, parts = settled(settings.spectra, view.shape.hidden), compared_parts(settings)
        options = dict(seed=seed, device=device, spectra=spectra, parts=parts)
        shard = layer_shards.measure_shard(view, layers, **options)
        return layer_shards.to_plain(shard), {}
    read = head_grams.reader(view, device=device)
    return {}, head_shards.to_tensors(head_shards.measure_shard(read, layers, view.shape, seed=seed))


def restore(analysis: str, checkpoint: Checkpoint, layers: range, settings: Settings, stored: Stored) -> Any:
    """What the analysis takes instead of measuring these layers itself."""
    tree, tensors = stored
    if analysis == "null_residual":
        return layer_shards.from_plain(tree)
    return head_shards.from_tensors(tensors, layers, restricted(analysis, checkpoint, settings).shape)
