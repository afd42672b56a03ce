"""Names that many families share, and how a family is derived from another."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from analyses.weights.layouts import PLAIN, STACKED, STACKED_HALVES, Layout
from analyses.weights.schema import Architecture, Kind, Place


def at(stem: str, names: Mapping[str, str], layout: Layout = PLAIN) -> dict[str, Place]:
    """Role → place for names that share a stem and a layout."""
    return {role: Place(stem + name, layout) for role, name in names.items()}


def fused(name: str, layout: Layout) -> dict[str, Place]:
    """Role → the one tensor that holds all roles of a layout."""
    return dict.fromkeys(layout.roles, Place(name, layout))


QKV = {"q_proj": "q_proj.weight", "k_proj": "k_proj.weight", "v_proj": "v_proj.weight"}
GATED = {"gate_proj": "gate_proj.weight", "up_proj": "up_proj.weight", "down_proj": "down_proj.weight"}
ATTENTION = at("layers.{}.self_attn.", QKV | {"o_proj": "o_proj.weight"})
MLP = at("layers.{}.mlp.", GATED)
NORMS = at("layers.{}.", {"input_ln": "input_layernorm.weight", "post_attn_ln": "post_attention_layernorm.weight"})
QK_NORMS = at("layers.{}.self_attn.", {"q_norm": "q_norm.weight", "k_norm": "k_norm.weight"})
NO_QK_NORM = {
    "q_norm": "this architecture does not normalise queries",
    "k_norm": "this architecture does not normalise keys",
}
OPTIONAL_QK_NORM = {k: "this checkpoint's config switches q/k norms off" for k in ("q_norm", "k_norm")}
UNGATED = {"gate_proj": "the feed-forward of this architecture is not gated"}
ONE_NORM = {"post_attn_ln": "attention and feed-forward are parallel and read the same norm"}
BEHIND = {"input_ln": "norms stand behind the branches: what attention reads, a norm of the layer before has scaled"}
BARE = dict.fromkeys(("input_ln", "post_attn_ln"), "the norms of this architecture have no parameters")
OUTSIDE = {"embedding": ("embed_tokens.weight",), "final_ln": ("norm.weight",)}
HEAD = {"head": ("lm_head.weight",)}
NEURONS = ("gate_proj", "up_proj", "down_proj")
HEADS = ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")

PARALLEL = {"parallel": True, "feed_forward_norm": "input_ln"}
LINEAR_NORM = {"layer_norm": True, "gated": False}
ALL_BIASES = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "input_ln", "post_attn_ln")
MEGATRON = {"up_proj": "dense_h_to_4h.weight", "down_proj": "dense_4h_to_h.weight"}


def parallel(record: Architecture, **changes: Any) -> Architecture:
    """A relative whose attention and feed-forward read one and the same norm."""
    tensors = {role: place for role, place in record.tensors.items() if role != "post_attn_ln"}
    absent, biases = record.absent | ONE_NORM, tuple(b for b in record.biases if b != "post_attn_ln")
    return replace(record, tensors=tensors, absent=absent, biases=biases, **PARALLEL, **changes)


# --- choices of experts ---------------------------------------------------------------------------

EXPERTS_NOTE = (
    "experts are compared index by index: an arbitrary pairing, since their order is a free permutation; n counts them"
)
SHARED_NOTE = "a feed-forward that every token passes stands beside the choice of experts and is not measured"
STACKED_EXPERTS = {
    **fused("layers.{}.mlp.experts.gate_up_proj", STACKED_HALVES),
    "down_proj": Place("layers.{}.mlp.experts.down_proj", STACKED),
}
W123 = {"gate_proj": "w1.weight", "up_proj": "w3.weight", "down_proj": "w2.weight"}


def dense_layers(stem: str = "layers.{}.mlp.", up: str = "up_proj.weight") -> Kind:
    """Layers with one feed-forward among layers with a choice of experts."""
    return Kind(
        name="one feed-forward, no choice of experts",
        shown_by=f"{stem}{up}",
        lacks=(*NEURONS, "router", "shared_gate", "shared_up", "shared_down"),
    )


def experts(
    record: Architecture,
    *,
    stem: str = "layers.{}.mlp.",
    names: Mapping[str, str] = GATED,
    router: str = "gate.weight",
    shared: str = "",
    width: str = "moe_intermediate_size",
    **changes: Any,
) -> Architecture:
    """A relative whose feed-forward is a choice of experts, in every layer or in all but some.

    Parameters
    ----------
    stem : of the feed-forward's names. names : of one expert's matrices. router : that of the choice.
    shared : of the feed-forward beside the choice, where there is one. width : config key of one expert's width.
    """
    places = {role: place for role, place in record.tensors.items() if role not in NEURONS}
    of_experts = at(f"{stem}experts.{{part}}.", names)
    further = {"router": Place(stem + router)}
    if shared:
        stems = {f"shared_{role.removesuffix('_proj')}": name for role, name in GATED.items()}
        further |= at(f"{stem}{shared}.", stems)
    if "mlp." in stem:
        changes = {"also": (*record.also, STACKED_EXPERTS)} | changes
    settings = {
        "tensors": places | of_experts,
        "further": dict(record.further) | further,
        "size_keys": dict(record.size_keys) | {"feed_forward": width},
        "experts": True,
        "kinds": (dense_layers(stem, names["up_proj"]), *record.kinds),
        "notes": (*record.notes, EXPERTS_NOTE, *([SHARED_NOTE] if shared else [])),
    }
    return replace(record, **settings | changes)
