"""A sentence on what positions do to a head's metric g = W_kᵀ W_q, read off the architecture."""

from analyses.weights.checkpoint import Checkpoint


def position_note(checkpoint: Checkpoint) -> str:
    """How far g is what queries and keys meet in: rotary, learned and biased positions differ.

    >>> from types import SimpleNamespace as Fake
    >>> bloom = Fake(shape=Fake(layers=2, head_dim=8), rotary_dims=lambda l: 0, architecture=Fake(outside={}))
    >>> position_note(bloom)
    'Positions add a bias of the distance alone to the logits: g lacks it, the dynamic statistics have it.'
    """
    dims = [checkpoint.rotary_dims(layer) for layer in range(checkpoint.shape.layers)]
    if not any(dims):
        if "positions" in checkpoint.architecture.outside:
            return "Positions are learned and part of the stream, so that g is the metric at every distance."
        return "Positions add a bias of the distance alone to the logits: g lacks it, the dynamic statistics have it."
    note = "g is the metric at relative distance 0; under rotary positions the metric at distance Δ is W_kᵀ R_Δ W_q"
    if max(dims) < checkpoint.shape.head_dim:
        note += f", R_Δ turning {max(dims)} of {checkpoint.shape.head_dim} dimensions"
    if still := [str(layer) for layer, turned in enumerate(dims) if not turned]:
        note += f"; layers without rotation: {', '.join(still)}"
    return note + "."
