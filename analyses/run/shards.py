"""An analysis of one large checkpoint in pieces: which there are, one made, and one brought back from the disk.

What a piece is, and why the record does not depend on the pieces, is told in `layer_shards` and `head_shards`. The
analysis itself goes over the same list, and makes what is not brought to it.
"""

from typing import Any

import torch

from analyses import head_grams
from analyses.forward.inputs import Settings, Skipped, arithmetic_device
from analyses.head_grams import shards as head_shards
from analyses.null_residual import shards as layer_shards
from analyses.run.suite import restricted
from analyses.weights.checkpoint import Checkpoint

ANALYSES = ("null_residual", "head_grams")
"""Those whose work grows with the square of a model's width, or of its depth."""

Stored = tuple[dict[str, Any], dict[str, torch.Tensor]]
"""A piece on disk: what is JSON of it, and what lies in the safetensors file beside."""


def pieces(analysis: str, checkpoint: Checkpoint, settings: Settings) -> list[range]:
    """The layers of each piece, from the headers alone; none where the settings leave nothing to measure."""
    try:
        view = restricted(analysis, checkpoint, settings)
    except Skipped:
        return []
    if analysis == "null_residual":
        return layer_shards.layer_shards(view)
    return head_shards.head_shards(view.shape)


def make(analysis: str, checkpoint: Checkpoint, layers: range, settings: Settings) -> Stored:
    """Measure the piece of these layers."""
    view, device, seed = restricted(analysis, checkpoint, settings), arithmetic_device(settings), settings.seed
    if analysis == "null_residual":
        found = layer_shards.measure_shard(view, layers, seed=seed, device=device, spectra=settings.spectra)
        return layer_shards.to_plain(found), {}
    read = head_grams.reader(view, device=device)
    return {}, head_shards.to_tensors(head_shards.measure_shard(read, layers, view.shape, seed=seed))


def restore(analysis: str, checkpoint: Checkpoint, layers: range, settings: Settings, stored: Stored) -> Any:
    """What the analysis takes instead of measuring these layers itself."""
    tree, tensors = stored
    if analysis == "null_residual":
        return layer_shards.from_plain(tree)
    return head_shards.from_tensors(tensors, layers, restricted(analysis, checkpoint, settings).shape)
