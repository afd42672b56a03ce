"""Decoders of which some layers have attention and the others a state space, a convolution or a recurrence."""

from dataclasses import replace

from analyses.weights.families_experts import _GATE_NOTE, GRANITE_SHARED
from analyses.weights.families_gpt import LLAMA
from analyses.weights.families_llama import GRANITE, OLMO2, QWEN3
from analyses.weights.families_parts import (
    ATTENTION,
    GATED,
    HEADS,
    NEURONS,
    NO_QK_NORM,
    NORMS,
    QK_NORMS,
    W123,
    at,
    experts,
    fused,
)
from analyses.weights.layouts import GATED_QUERIES, HALVES
from analyses.weights.schema import Kind, Place

_OWN = {"by_name": False}
_FINAL = {"embedding": ("embed_tokens.weight",), "final_ln": ("final_layernorm.weight",)}


def _instead(name: str, shown_by: str, module: str, *more: str) -> Kind:
    """Layers with something else in the place of attention."""
    return Kind(name=name, shown_by=shown_by, lacks=(*HEADS, "attention_gate", *more), attention=module)


_DELTA = _instead("linear attention", "layers.{}.linear_attn.A_log", "linear_attn")
QWEN35 = replace(
    QWEN3,
    name="Qwen3.5",
    model_types=("qwen3_5_text", "qwen3_5"),
    tensors=QWEN3.tensors | {"q_proj": Place("layers.{}.self_attn.q_proj.weight", GATED_QUERIES)},
    further={"attention_gate": Place("layers.{}.self_attn.q_proj.weight", GATED_QUERIES)},
    gain_offset=1.0,
    rotary_fraction=0.25,
    kinds=(_DELTA,),
    notes=(_GATE_NOTE,),
    **_OWN,
)
QWEN35_MOE = experts(
    QWEN35, name="Qwen3.5-MoE", model_types=("qwen3_5_moe_text", "qwen3_5_moe"), shared="shared_expert"
)
QWEN3_NEXT = replace(QWEN35_MOE, name="Qwen3-Next", model_types=("qwen3_next",))
OLMO_HYBRID = replace(
    OLMO2,
    name="OLMo Hybrid",
    model_types=("olmo_hybrid",),
    further=OLMO2.further | {"attn_out_ln": Place("layers.{}.feedforward_layer_norm.weight")},
    kinds=(
        Kind(
            name="linear attention",
            shown_by="layers.{}.linear_attn.A_log",
            lacks=(*HEADS, *NEURONS, "attn_out_ln", "ffn_out_ln"),
            attention="linear_attn",
            feed_forward="mlp",
        ),
    ),
    rotary_if_given=True,
    notes=(*OLMO2.notes, "layers of linear attention read the stream behind a norm, the others as it is"),
    **_OWN,
)
_MAMBA = _instead("a state space", "layers.{}.mamba.A_log", "mamba")
_FEED_FORWARD = at("layers.{}.feed_forward.", GATED)
_PRE_FF = at("layers.{}.", {"input_ln": "input_layernorm.weight", "post_attn_ln": "pre_ff_layernorm.weight"})
BAMBA = replace(
    LLAMA,
    name="Bamba",
    model_types=("bamba",),
    tensors=ATTENTION | _FEED_FORWARD | _PRE_FF,
    outside=_FINAL,
    rotary_fraction=0.5,
    final_norm="final_layernorm",
    feed_forward="feed_forward",
    kinds=(_MAMBA,),
    **_OWN,
)
FALCON_H1 = replace(
    BAMBA,
    name="Falcon-H1",
    model_types=("falcon_h1",),
    rotary_fraction=1.0,
    kinds=(),
    attention_branch="mamba*ssm_out_multiplier+self_attn*attention_out_multiplier",
    reads_scaled=True,
    notes=(
        "each layer has attention and a state space side by side; the attention branch is the sum of both",
        "what attention reads, its keys and what it writes are scaled by multipliers of the config, which weights do "
        "not show",
    ),
)
JAMBA = experts(
    replace(BAMBA, rotary=None, unplaced=True),
    name="Jamba",
    model_types=("jamba",),
    stem="layers.{}.feed_forward.",
    router="router.weight",
    width="intermediate_size",
)
LFM2 = replace(
    LLAMA,
    name="LFM2",
    model_types=("lfm2",),
    tensors=at(
        "layers.{}.self_attn.",
        {
            "q_proj": "q_proj.weight",
            "k_proj": "k_proj.weight",
            "v_proj": "v_proj.weight",
            "o_proj": "out_proj.weight",
            "q_norm": "q_layernorm.weight",
            "k_norm": "k_layernorm.weight",
        },
    )
    | at("layers.{}.feed_forward.", W123)
    | at("layers.{}.", {"input_ln": "operator_norm.weight", "post_attn_ln": "ffn_norm.weight"}),
    absent={},
    qk_norm="per head",
    outside={"embedding": ("embed_tokens.weight",), "final_ln": ("embedding_norm.weight",)},
    width_shown=True,
    tied=True,
    final_norm="embedding_norm",
    feed_forward="feed_forward",
    kinds=(_instead("a short convolution", "layers.{}.conv.conv.weight", "conv"),),
    **_OWN,
)
LFM2_MOE = experts(
    LFM2, name="LFM2-MoE", model_types=("lfm2_moe",), stem="layers.{}.feed_forward.", names=W123, width_shown=False
)
LFM3 = replace(
    LFM2,
    name="LFM3",
    model_types=("lfm3",),
    tensors=LFM2.tensors | QK_NORMS | {"o_proj": Place("layers.{}.self_attn.o_proj.weight")},
    further=at("layers.{}.", {"attn_out_ln": "post_operator_norm.weight", "ffn_out_ln": "post_ffn_norm.weight"}),
    attention_branch="post_operator_norm",
    feed_forward_branch="post_ffn_norm",
    kinds=(_instead("a short convolution", "layers.{}.conv.conv.weight", ""),),
    notes=(*OLMO2.notes, _GATE_NOTE),
)
GRANITE_HYBRID = replace(
    GRANITE_SHARED,
    name="Granite 4",
    model_types=("granitemoehybrid",),
    kinds=(_MAMBA,),
    variants=(
        replace(
            GRANITE,
            name="Granite 4",
            model_types=("granitemoehybrid",),
            tensors=ATTENTION
            | NORMS
            | fused("layers.{}.shared_mlp.input_linear.weight", HALVES)
            | {"down_proj": Place("layers.{}.shared_mlp.output_linear.weight")},
            size_keys={"feed_forward": "shared_intermediate_size"},
            feed_forward="shared_mlp",
            kinds=(_MAMBA,),
        ),
    ),
)
MINIMAX = experts(
    LLAMA,
    name="MiniMax",
    model_types=("minimax",),
    stem="layers.{}.block_sparse_moe.",
    names=W123,
    width="intermediate_size",
    kinds=(
        Kind(
            name="lightning attention",
            shown_by="layers.{}.self_attn.slope_rate",
            lacks=HEADS,
        ),
    ),
    unsummed="a layer hands on the stream behind its norm, scaled, so that it does not add the sum of its branches",
    **_OWN,
)
RECURRENT_GEMMA = replace(
    LLAMA,
    name="RecurrentGemma",
    model_types=("recurrent_gemma",),
    tensors=at("layers.{}.temporal_block.", {r: f"{r}.weight" for r in ("q_proj", "k_proj", "v_proj", "o_proj")})
    | at("layers.{}.mlp_block.", GATED)
    | at("layers.{}.", {"input_ln": "temporal_pre_norm.weight", "post_attn_ln": "channel_pre_norm.weight"}),
    outside={"embedding": ("embed_tokens.weight",), "final_ln": ("final_norm.weight",)},
    gain_offset=1.0,
    biases=("o_proj", "gate_proj", "up_proj", "down_proj"),
    rotary_fraction=0.5,
    width_shown=True,
    tied=True,
    final_norm="final_norm",
    attention="temporal_block",
    feed_forward="mlp_block",
    kinds=(Kind(name="a linear recurrence", shown_by="layers.{}.temporal_block.linear_x.weight", lacks=HEADS),),
    **_OWN,
)
_ONE_BRANCH = ("o_proj", "q_proj", "k_proj", "v_proj")
NEMOTRON_H = replace(
    LLAMA,
    name="Nemotron-H",
    model_types=("nemotron_h",),
    tensors=at("layers.{}.mixer.", {r: f"{r}.weight" for r in (*_ONE_BRANCH, "up_proj", "down_proj")})
    | {"input_ln": Place("layers.{}.norm.weight")},
    absent=NO_QK_NORM
    | {
        "gate_proj": "the feed-forward of this architecture is not gated",
        "post_attn_ln": "a layer has one branch and one norm",
    },
    outside={"embedding": ("embeddings.weight",), "final_ln": ("norm_f.weight",)},
    feed_forward_norm="input_ln",
    gated=False,
    rotary=None,
    unplaced=True,
    final_norm="norm_f",
    attention="mixer",
    feed_forward="mixer",
    kinds=(
        Kind(name="a state space", shown_by="layers.{}.mixer.A_log", lacks=(*HEADS, *NEURONS), feed_forward=None),
        Kind(
            name="attention alone",
            shown_by="layers.{}.mixer.q_proj.weight",
            lacks=NEURONS,
            feed_forward=None,
        ),
        Kind(name="a feed-forward alone", shown_by="layers.{}.mixer.up_proj.weight", lacks=HEADS, attention=None),
        Kind(
            name="a choice of experts alone",
            shown_by="layers.{}.mixer.gate.weight",
            lacks=(*HEADS, *NEURONS),
            attention=None,
        ),
    ),
    notes=("each layer has one branch: attention, a feed-forward, or a state space, counted as attention",),
    **_OWN,
)

RECORDS = (
    QWEN35, QWEN35_MOE, QWEN3_NEXT, OLMO_HYBRID, BAMBA, FALCON_H1, JAMBA, LFM2, LFM2_MOE, LFM3, GRANITE_HYBRID,
    MINIMAX, RECURRENT_GEMMA, NEMOTRON_H,
)  # fmt: skip
