"""What positions do to a head's metric g = W_kᵀ W_q: which planes they turn, and a sentence for the page."""

import json
from collections.abc import Mapping
from typing import Any

from analyses.weights.checkpoint import PROPORTIONAL, Checkpoint
from analyses.weights.planes import Turns

BASE = 10_000.0  # of rotary frequencies, where a config gives none
BASES = {
    "sliding_attention": ("rope_local_base_freq", "local_rope_theta"),
    "full_attention": ("global_rope_theta",),
}
"""Kind of attention → keys of its own base, in configs that give each one."""


def turns(checkpoint: Checkpoint, layer: int) -> Turns:
    """The planes that positions turn in a layer, and how fast: θ_p = base^(−2p/dims) for dims turned dimensions."""
    planes = checkpoint.rotary_dims(layer) // 2
    if not planes:
        return Turns()
    base, scaling = _rotary_parameters(checkpoint.config, checkpoint.number(layer))
    turned = planes
    if scaling.get("rope_type") == PROPORTIONAL:  # planes of the whole head, of which only the first ones turn
        turned = int(planes * (scaling.get("partial_rotary_factor") or 1.0))
    scaling.pop("partial_rotary_factor", None)
    return Turns(
        frequencies=tuple(base ** (-plane / planes) if plane < turned else 0.0 for plane in range(planes)),
        pairs=checkpoint.architecture.rotary == "pairs",
        scaling=json.dumps(scaling, sort_keys=True),
    )


def _rotary_parameters(config: Mapping[str, Any], layer: int) -> tuple[float, dict[str, Any]]:
    """The base of a layer's frequencies, and what the config says of their scaling."""
    kind = _kind(config, layer)
    if base := next((config[key] for key in BASES.get(kind, ()) if config.get(key)), None):
        return float(base), {}
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = {**(found.get(kind) or found)}
    base = found.pop("rope_theta", None) or config.get("rope_theta") or config.get("rotary_emb_base") or BASE
    return float(base), found


def _kind(config: Mapping[str, Any], layer: int) -> str:
    """The kind of a layer's attention, by whichever key the config says it."""
    if kinds := config.get("layer_types"):
        return kinds[layer]
    pattern, every = config.get("sliding_window_pattern"), config.get("global_attn_every_n_layers")
    windowed = (layer + 1) % pattern if pattern else layer % every if every else 0
    return "sliding_attention" if windowed else "full_attention"


def position_note(checkpoint: Checkpoint) -> str:
    """How far g is what queries and keys meet in: rotary, learned and biased positions differ.

    >>> from types import SimpleNamespace as Fake
    >>> facts = Fake(outside={}, unplaced=False, positions="")
    >>> bloom = Fake(shape=Fake(layers=2, head_dim=8), rotary_dims=lambda layer: 0, architecture=facts)
    >>> position_note(bloom)
    'Positions add a bias of the distance alone to the logits: g lacks it, the dynamic statistics have it.'
    """
    if checkpoint.architecture.positions:
        return checkpoint.architecture.positions
    dims = [checkpoint.rotary_dims(layer) for layer in range(checkpoint.shape.layers)]
    if not any(dims):
        if checkpoint.architecture.unplaced:
            return "There are no positions: g is the metric at every distance, and other layers carry the order."
        if "positions" in checkpoint.architecture.outside:
            return "Positions are learned and part of the stream, so that g is the metric at every distance."
        return "Positions add a bias of the distance alone to the logits: g lacks it, the dynamic statistics have it."
    note = "g is the metric at relative distance 0; under rotary positions the metric at distance Δ is W_kᵀ R_Δ W_q"
    if max(dims) < checkpoint.shape.head_dim:
        note += f", R_Δ turning {max(dims)} of {checkpoint.shape.head_dim} dimensions"
    if still := [str(layer) for layer, turned in enumerate(dims) if not turned]:
        note += f"; layers without rotation: {', '.join(still)}"
    return note + "."
