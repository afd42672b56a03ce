"""Decoders whose feed-forward is a choice of experts, in all layers or in all but the first."""

from dataclasses import replace

from analyses.weights.families_llama import (
    _STILL_NOTE,
    COHERE2,
    GRANITE,
    HUNYUAN,
    LLAMA,
    OLMO2,
    PAIRED,
    QWEN2,
    QWEN3,
)
from analyses.weights.families_parts import (
    ATTENTION,
    EXPERTS_NOTE,
    HEADS,
    NORMS,
    OPTIONAL_QK_NORM,
    QK_NORMS,
    SHARED_NOTE,
    W123,
    at,
    dense_layers,
    experts,
    fused,
)
from analyses.weights.layouts import (
    STACKED,
    STACKED_HALVES,
    TRANSPOSED_STACKED,
    TRANSPOSED_STACKED_HALVES,
    TRANSPOSED_STACKED_ROWS,
)
from analyses.weights.schema import Kind, Place

_OWN = {"by_name": False}
_SINKS_NOTE = "learned sinks take up probability: statistics of attention are of what they leave"
_GATE_NOTE = "what attention reads is gated before o_proj, by a gate of the same input that is not measured"

QWEN3_MOE = experts(QWEN3, name="Qwen3-MoE", model_types=("qwen3_moe",))
MELLUM = replace(QWEN3_MOE, name="Mellum", model_types=("mellum",), **_OWN)
QWEN2_MOE = experts(QWEN2, name="Qwen2-MoE", model_types=("qwen2_moe",), shared="shared_expert", **_OWN)
MIXTRAL = experts(
    LLAMA,
    name="Mixtral",
    model_types=("mixtral",),
    stem="layers.{}.block_sparse_moe.",
    names=W123,
    width="intermediate_size",
    also=(
        fused("layers.{}.mlp.experts.gate_up_proj", STACKED_HALVES)
        | {
            "down_proj": Place("layers.{}.mlp.experts.down_proj", STACKED),
            "router": Place("layers.{}.mlp.gate.weight"),
        },
    ),
    kinds=(),
)
MINIMAX_M2 = replace(
    MIXTRAL,
    name="MiniMax M2",
    model_types=("minimax_m2",),
    tensors=MIXTRAL.tensors | QK_NORMS,
    absent={},
    qk_norm="whole projection",
    **_OWN,
)
PHIMOE = replace(
    MIXTRAL,
    name="Phi-MoE",
    model_types=("phimoe",),
    layer_norm=True,
    biases=("input_ln", "post_attn_ln"),
    **_OWN,
)
OLMOE = experts(
    replace(QWEN3, qk_norm="whole projection"),
    name="OLMoE",
    model_types=("olmoe",),
    width="intermediate_size",
    **_OWN,
)
FLEX_OLMO = experts(OLMO2, name="FlexOLMo", model_types=("flex_olmo",), width="intermediate_size", **_OWN)
COHERE2_MOE = experts(
    COHERE2,
    name="Cohere 2-MoE",
    model_types=("cohere2_moe",),
    shared="shared_experts",
    width="intermediate_size",
    notes=(_STILL_NOTE, EXPERTS_NOTE, SHARED_NOTE),
)
ERNIE45_MOE = experts(PAIRED, name="Ernie 4.5-MoE", model_types=("ernie4_5_moe",), shared="shared_experts")
DOTS1 = experts(QWEN3, name="dots.1", model_types=("dots1",), shared="shared_experts", **_OWN)
GLM4_MOE = experts(
    replace(
        LLAMA,
        tensors=LLAMA.tensors | QK_NORMS,
        absent={},
        optional=OPTIONAL_QK_NORM,
        qk_norm="per head",
        rotary_fraction=0.5,
    ),
    name="GLM-4-MoE",
    model_types=("glm4_moe",),
    shared="shared_experts",
    **_OWN,
)
SOLAR_OPEN = experts(LLAMA, name="Solar Open", model_types=("solar_open",), shared="shared_experts", **_OWN)
EXAONE_MOE = experts(
    QWEN3,
    name="EXAONE-MoE",
    model_types=("exaone_moe",),
    shared="shared_experts",
    turned_in=("sliding_attention",),
    notes=("where there are windows, layers of full attention have no positions", EXPERTS_NOTE, SHARED_NOTE),
    **_OWN,
)
HUNYUAN_MOE = experts(
    HUNYUAN,
    name="Hunyuan-MoE",
    model_types=("hunyuan_v1_moe",),
    router="gate.wg.weight",
    shared="shared_mlp",
    width="intermediate_size",
)
HY3 = experts(
    QWEN3,
    name="Hunyuan 3",
    model_types=("hy_v3",),
    router="router.gate.weight",
    shared="shared_mlp",
    **_OWN,
)
AFMOE = experts(
    replace(
        QWEN3,
        tensors=QWEN3.tensors | {"post_attn_ln": Place("layers.{}.pre_mlp_layernorm.weight")},
        further=at(
            "layers.{}.", {"attn_out_ln": "post_attention_layernorm.weight", "ffn_out_ln": "post_mlp_layernorm.weight"}
        ),
        attention_branch="post_attention_layernorm",
        feed_forward_branch="post_mlp_layernorm",
    ),
    name="AFMoE",
    model_types=("afmoe",),
    router="router.gate.weight",
    shared="shared_experts",
    turned_in=("sliding_attention",),
    notes=(*OLMO2.notes, _STILL_NOTE, _GATE_NOTE, EXPERTS_NOTE, SHARED_NOTE),
    **_OWN,
)
BEAM = replace(
    AFMOE,
    name="BEAM",
    model_types=("beam",),
    tensors=AFMOE.tensors | {"post_attn_ln": Place("layers.{}.pre_feedforward_layernorm.weight")},
    further=at(
        "layers.{}.",
        {"attn_out_ln": "post_attention_layernorm.weight", "ffn_out_ln": "post_feedforward_layernorm.weight"},
    )
    | {"router": Place("layers.{}.mlp.gate.weight")},
    feed_forward_branch="post_feedforward_layernorm",
    turned_in=(),
    unsummed="the stream shrinks by a factor of its depth whenever a branch adds to it",
    notes=(*OLMO2.notes, _GATE_NOTE, EXPERTS_NOTE),
)
KOLIBRI = experts(
    replace(
        QWEN3,
        further=at("layers.{}.", {"attn_out_ln": "post_attn_norm.weight", "ffn_out_ln": "post_ffn_norm.weight"}),
        attention_branch="post_self_attn_layernorm",
        feed_forward_branch="post_mlp_layernorm",
    ),
    name="Kolibri",
    model_types=("kolibri1",),
    shared="shared_experts",
    notes=(*OLMO2.notes, EXPERTS_NOTE, SHARED_NOTE),
    **_OWN,
)
LAGUNA = experts(
    QWEN3,
    name="Laguna",
    model_types=("laguna",),
    shared="shared_expert",
    notes=(_GATE_NOTE, EXPERTS_NOTE, SHARED_NOTE),
    **_OWN,
)
FLINT = experts(
    QWEN3,
    name="Flint",
    model_types=("flint",),
    shared="shared_expert",
    turned_in=("sliding_attention",),
    notes=(_STILL_NOTE, _SINKS_NOTE, EXPERTS_NOTE, SHARED_NOTE),
    **_OWN,
)
MIMO = experts(
    LLAMA,
    name="MiMo-V2-Flash",
    model_types=("mimo_v2_flash",),
    kinds=(
        dense_layers(),
        Kind(
            name="attention in a window, with other numbers of key heads",
            shown_by="layers.{}.self_attn.attention_sink_bias",
            lacks=HEADS[:4],
        ),
    ),
    notes=(_SINKS_NOTE, EXPERTS_NOTE),
    **_OWN,
)

# --- experts that are stored together ---------------------------------------------------------------

GPT_OSS = replace(
    LLAMA,
    name="gpt-oss",
    model_types=("gpt_oss",),
    tensors=ATTENTION
    | NORMS
    | fused("layers.{}.mlp.experts.gate_up_proj", TRANSPOSED_STACKED_ROWS)
    | {"down_proj": Place("layers.{}.mlp.experts.down_proj", TRANSPOSED_STACKED)},
    further={"router": Place("layers.{}.mlp.router.weight")},
    experts=True,
    biases=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    notes=(_SINKS_NOTE, EXPERTS_NOTE),
    **_OWN,
)
_LLAMA4_PLACES = fused("layers.{}.feed_forward.experts.gate_up_proj", TRANSPOSED_STACKED_HALVES) | {
    "down_proj": Place("layers.{}.feed_forward.experts.down_proj", TRANSPOSED_STACKED)
}
LLAMA4 = replace(
    LLAMA,
    name="Llama 4",
    model_types=("llama4_text", "llama4"),
    tensors=ATTENTION | NORMS | _LLAMA4_PLACES,
    further={"router": Place("layers.{}.feed_forward.router.weight")},
    experts=True,
    rotary="pairs",
    feed_forward="feed_forward",
    kinds=(dense_layers("layers.{}.feed_forward."),),
    notes=(
        "some layers have no positions (config: no_rope_layers); there queries grow with their position, and elsewhere "
        "queries and keys are normalised without parameters",
        EXPERTS_NOTE,
        SHARED_NOTE,
    ),
    **_OWN,
)
ARIA = replace(
    LLAMA,
    name="Aria",
    model_types=("aria_text",),
    tensors=ATTENTION
    | NORMS
    | fused("layers.{}.mlp.experts.fc1.weight", TRANSPOSED_STACKED_HALVES)
    | {"down_proj": Place("layers.{}.mlp.experts.fc2.weight", TRANSPOSED_STACKED)},
    further={"router": Place("layers.{}.mlp.router.weight")},
    size_keys={"experts": "moe_num_experts"},
    experts=True,
    notes=(EXPERTS_NOTE, SHARED_NOTE),
    **_OWN,
)
MINIMAX_M3 = replace(
    QWEN3,
    name="MiniMax M3",
    model_types=("minimax_m3_vl_text",),
    tensors=ATTENTION
    | NORMS
    | QK_NORMS
    | fused("layers.{}.mlp.experts.gate_up_proj", STACKED_HALVES)
    | {"down_proj": Place("layers.{}.mlp.experts.down_proj", STACKED)},
    further={"router": Place("layers.{}.mlp.gate.weight")},
    experts=True,
    gain_offset=1.0,
    kinds=(dense_layers(up="gate_up_proj.weight"),),
    notes=(EXPERTS_NOTE, SHARED_NOTE),
    **_OWN,
)
_GRANITE_EXPERTS = fused("layers.{}.block_sparse_moe.input_linear.weight", STACKED_HALVES) | {
    "down_proj": Place("layers.{}.block_sparse_moe.output_linear.weight", STACKED)
}
GRANITE_MOE = replace(
    GRANITE,
    name="Granite-MoE",
    model_types=("granitemoe",),
    tensors=ATTENTION | NORMS | _GRANITE_EXPERTS,
    further={"router": Place("layers.{}.block_sparse_moe.router.layer.weight")},
    experts=True,
    feed_forward="block_sparse_moe",
    notes=(*GRANITE.notes, EXPERTS_NOTE),
)
GRANITE_SHARED = replace(
    GRANITE_MOE,
    name="Granite-MoE, shared",
    model_types=("granitemoeshared",),
    feed_forward_branch="block_sparse_moe+shared_mlp",
    notes=(*GRANITE_MOE.notes, SHARED_NOTE),
)
GRANITE_MOE_SWA = replace(
    GRANITE_SHARED,
    name="Granite-MoE, windows",
    model_types=("granitemoe_swa",),
    tensors=ATTENTION
    | NORMS
    | fused("layers.{}.block_sparse_moe.experts.gate_up_proj", STACKED_HALVES)
    | {"down_proj": Place("layers.{}.block_sparse_moe.experts.down_proj", STACKED)},
    further={"router": Place("layers.{}.block_sparse_moe.router.weight")},
    notes=(*GRANITE_SHARED.notes, _SINKS_NOTE),
)

RECORDS = (
    QWEN2_MOE, QWEN3_MOE, MELLUM, MIXTRAL, MINIMAX_M2, MINIMAX_M3, PHIMOE, OLMOE, FLEX_OLMO, COHERE2_MOE, ERNIE45_MOE,
    DOTS1, GLM4_MOE, SOLAR_OPEN, EXAONE_MOE, HUNYUAN_MOE, HY3, AFMOE, BEAM, KOLIBRI, LAGUNA, FLINT, MIMO, GPT_OSS,
    LLAMA4, ARIA, GRANITE_MOE, GRANITE_SHARED, GRANITE_MOE_SWA,
)  # fmt: skip
