"""Decoders with RMSNorm and a gated feed-forward, and what has grown from them."""

from dataclasses import replace

from analyses.weights.families_parts import (
    ATTENTION,
    BARE,
    HEAD,
    HEADS,
    MLP,
    NO_QK_NORM,
    NORMS,
    OPTIONAL_QK_NORM,
    OUTSIDE,
    QK_NORMS,
    QKV,
    UNGATED,
    at,
    fused,
    parallel,
)
from analyses.weights.layouts import HALVES, ROWS
from analyses.weights.schema import Architecture, Kind, Place

LLAMA = Architecture(
    name="Llama",
    model_types=("llama", "mistral"),
    tensors=ATTENTION | MLP | NORMS,
    absent=NO_QK_NORM,
    outside=OUTSIDE,
    head=HEAD,
)
QWEN2 = replace(LLAMA, name="Qwen2", model_types=("qwen2",), biases=("q_proj", "k_proj", "v_proj"))
QWEN3 = replace(
    LLAMA, name="Qwen3", model_types=("qwen3",), tensors=LLAMA.tensors | QK_NORMS, absent={}, qk_norm="per head"
)
SMOLLM3 = replace(
    LLAMA,
    name="SmolLM3",
    tied=True,
    model_types=("smollm3",),
    by_name=False,
    notes=("some layers have no positions (config: no_rope_layers), so queries and keys are not rotated there",),
)
GRANITE = replace(
    LLAMA,
    name="Granite",
    model_types=("granite",),
    by_name=False,
    residual_multiplier="residual_multiplier",
    notes=("what a branch writes is multiplied by the config's residual_multiplier, which the weights do not show",),
)
PHI3 = replace(
    LLAMA,
    name="Phi-3",
    model_types=("phi3",),
    tensors=LLAMA.tensors
    | fused("layers.{}.self_attn.qkv_proj.weight", ROWS)
    | fused("layers.{}.mlp.gate_up_proj.weight", HALVES),
)
OLMO = replace(
    LLAMA,
    name="OLMo",
    model_types=("olmo",),
    tensors=ATTENTION | MLP,
    absent=NO_QK_NORM
    | dict.fromkeys(("input_ln", "post_attn_ln"), "the norms of this architecture have no parameters"),
    outside={"embedding": ("embed_tokens.weight",)},
    layer_norm=True,
    bare_norms=True,
    feed_forward_norm=None,
)
OLMO2 = replace(
    QWEN3,
    name="OLMo 2",
    model_types=("olmo2",),
    tensors=ATTENTION | MLP | QK_NORMS,
    absent={
        "input_ln": "attention reads the stream as it is; the norm stands behind it",
        "post_attn_ln": "the feed-forward reads the stream as it is; the norm stands behind it",
    },
    further=at(
        "layers.{}.",
        {"attn_out_ln": "post_attention_layernorm.weight", "ffn_out_ln": "post_feedforward_layernorm.weight"},
    ),
    feed_forward_norm=None,
    qk_norm="whole projection",
    attention_branch="post_attention_layernorm",
    feed_forward_branch="post_feedforward_layernorm",
    notes=("each branch is normalised before it is added, so that the sizes of o_proj and down_proj cancel",),
)

_GEMMA_SIZES = {"head_dim": 256}
GEMMA = replace(
    LLAMA, name="Gemma", model_types=("gemma",), gain_offset=1.0, tied=True, by_name=False, missing_sizes=_GEMMA_SIZES
)
GEMMA2 = replace(
    GEMMA,
    name="Gemma 2",
    model_types=("gemma2",),
    tensors=ATTENTION
    | MLP
    | at("layers.{}.", {"input_ln": "input_layernorm.weight", "post_attn_ln": "pre_feedforward_layernorm.weight"}),
    further=OLMO2.further,
    attention_branch="post_attention_layernorm",
    feed_forward_branch="post_feedforward_layernorm",
    notes=(*OLMO2.notes, "post_attn_ln is the gain that the feed-forward reads, stored as pre_feedforward_layernorm"),
)
GEMMA3 = replace(
    GEMMA2,
    name="Gemma 3",
    model_types=("gemma3_text", "gemma3"),
    tensors=GEMMA2.tensors | QK_NORMS,
    absent={},
    qk_norm="per head",
    missing_sizes=_GEMMA_SIZES | {"heads": 8, "kv_heads": 4},
)

_OWN = {"by_name": False}  # of a type that its names alone do not tell from others

# --- Llama's names with something else in them --------------------------------------------------

ALIKE = replace(
    LLAMA,
    name="Llama, other types",
    model_types=("ministral", "internlm3", "iquestcoder", "seed_oss", "cwm"),
    **_OWN,
)
MINISTRAL3 = replace(
    LLAMA,
    name="Ministral 3",
    model_types=("ministral3",),
    notes=("queries grow with their position (config: llama_4_scaling_beta), which the weights do not show",),
    **_OWN,
)
PAIRED = replace(LLAMA, name="Helium", model_types=("helium",), rotary="pairs", **_OWN)
ERNIE45 = replace(PAIRED, name="Ernie 4.5", model_types=("ernie4_5",))
HYPERCLOVAX = replace(
    GRANITE,
    name="HyperCLOVA X",
    model_types=("hyperclovax",),
    further=at("layers.{}.", {"attn_out_ln": "post_norm1.weight", "ffn_out_ln": "post_norm2.weight"}),
    attention_branch="post_norm1",
    feed_forward_branch="post_norm2",
)
GRANITE_SWA = replace(
    GRANITE,
    name="Granite, windows",
    model_types=("granite_swa",),
    notes=(*GRANITE.notes, "learned sinks take up probability: statistics of attention are of what they leave"),
)
BITNET = replace(
    LLAMA,
    name="BitNet",
    model_types=("bitnet",),
    further={
        "mixed_ln": Place("layers.{}.self_attn.attn_sub_norm.weight"),
        "neurons_ln": Place("layers.{}.mlp.ffn_sub_norm.weight"),
    },
    notes=("norms stand in front of o_proj and down_proj, inside the branches; their gains are not folded in",),
    **_OWN,
)
DOGE = replace(
    QWEN3,
    name="Doge",
    model_types=("doge",),
    refused="each of its layers keeps a share of the stream of its own for every channel, so that a layer does not "
    "add what its branches write",
)
HUNYUAN = replace(
    QWEN3,
    name="Hunyuan",
    model_types=("hunyuan_v1_dense",),
    tensors=LLAMA.tensors
    | at("layers.{}.self_attn.", {"q_norm": "query_layernorm.weight", "k_norm": "key_layernorm.weight"}),
    qk_norm_behind_turn=True,
    **_OWN,
)
ARCEE = replace(
    LLAMA,
    name="Arcee",
    model_types=("arcee",),
    tensors=ATTENTION | NORMS | at("layers.{}.mlp.", {"up_proj": "up_proj.weight", "down_proj": "down_proj.weight"}),
    absent=NO_QK_NORM | UNGATED,
    gated=False,
    **_OWN,
)
APERTUS = replace(
    ARCEE,
    name="Apertus",
    model_types=("apertus",),
    tensors=ARCEE.tensors
    | QK_NORMS
    | at("layers.{}.", {"input_ln": "attention_layernorm.weight", "post_attn_ln": "feedforward_layernorm.weight"}),
    absent=UNGATED,
    qk_norm="per head",
)
NANOCHAT = replace(
    ARCEE,
    name="nanochat",
    model_types=("nanochat",),
    tensors=ATTENTION | at("layers.{}.mlp.", {"up_proj": "fc1.weight", "down_proj": "fc2.weight"}),
    absent=UNGATED
    | BARE
    | dict.fromkeys(("q_norm", "k_norm"), "queries and keys are normalised without parameters, which is left out"),
    outside={"embedding": ("embed_tokens.weight",)},
    bare_norms=True,
    feed_forward_norm=None,
)
JAIS2 = replace(
    ARCEE,
    name="Jais 2",
    model_types=("jais2",),
    layer_norm=True,
    biases=("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "input_ln", "post_attn_ln"),
)
NEMOTRON = replace(
    JAIS2,
    name="Nemotron",
    model_types=("nemotron",),
    gain_offset=1.0,
    biases=("input_ln", "post_attn_ln"),
    rotary_fraction=0.5,
)
STARCODER2 = replace(
    JAIS2,
    name="StarCoder 2",
    model_types=("starcoder2",),
    tensors=ATTENTION | NORMS | at("layers.{}.mlp.", {"up_proj": "c_fc.weight", "down_proj": "c_proj.weight"}),
    biases=("input_ln", "post_attn_ln"),
    tied=True,
)
COHERE = parallel(
    replace(
        LLAMA,
        name="Cohere",
        model_types=("cohere",),
        tensors=LLAMA.tensors | QK_NORMS,
        absent={},
        optional=OPTIONAL_QK_NORM,
        layer_norm=True,
        rotary="pairs",
        qk_norm="own per head",
        qk_layer_norm=True,
        tied=True,
        **_OWN,
    )
)
_STILL_NOTE = "layers of full attention have no positions, so queries and keys are not rotated there"
COHERE2 = replace(
    COHERE,
    name="Cohere 2",
    model_types=("cohere2",),
    tensors={role: place for role, place in COHERE.tensors.items() if role not in ("q_norm", "k_norm")},
    absent=COHERE.absent | NO_QK_NORM,
    optional={},
    qk_norm=None,
    qk_layer_norm=False,
    turned_in=("sliding_attention",),
    notes=(_STILL_NOTE,),
)

# --- GLM ------------------------------------------------------------------------------------------

GLM = replace(
    LLAMA,
    name="GLM",
    model_types=("glm",),
    tensors=LLAMA.tensors | fused("layers.{}.mlp.gate_up_proj.weight", HALVES),
    rotary="pairs",
    rotary_fraction=0.5,
    **_OWN,
)
GLM4 = replace(
    GLM,
    name="GLM-4",
    model_types=("glm4",),
    further=at(
        "layers.{}.", {"attn_out_ln": "post_self_attn_layernorm.weight", "ffn_out_ln": "post_mlp_layernorm.weight"}
    ),
    attention_branch="post_self_attn_layernorm",
    feed_forward_branch="post_mlp_layernorm",
    notes=OLMO2.notes,
)

# --- norms behind the branches --------------------------------------------------------------------

OLMO3 = replace(OLMO2, name="OLMo 3", model_types=("olmo3",), **_OWN)
EXAONE4 = replace(
    OLMO2,
    name="EXAONE 4",
    model_types=("exaone4",),
    qk_norm="per head",
    turned_in=("sliding_attention",),
    notes=(*OLMO2.notes, "where there are windows, layers of full attention have no positions"),
    **_OWN,
)
VAULTGEMMA = replace(
    GEMMA2,
    name="VaultGemma",
    model_types=("vaultgemma",),
    further={},
    attention_branch="",
    feed_forward_branch="",
    notes=GEMMA2.notes[-1:],
)
GEMMA4 = replace(
    GEMMA3,
    name="Gemma 4",
    model_types=("gemma4_text", "gemma4", "gemma4_unified_text", "gemma4_unified"),
    gain_offset=0.0,
    missing_sizes={},
    kinds=(
        Kind(
            name="full attention, with heads of another size",
            shown_by="config: layer_types=full_attention",
            lacks=HEADS,
        ),
    ),
    unsummed="a layer scales the stream, and where the config has inputs of each layer they are a third branch",
)

# --- names of their own -------------------------------------------------------------------------

MODERNBERT_DECODER = replace(
    LLAMA,
    name="ModernBERT, decoder",
    model_types=("modernbert-decoder",),
    tensors=at("layers.{}.attn.", QKV | {"o_proj": "Wo.weight"})
    | fused("layers.{}.mlp.Wi.weight", HALVES)
    | {"down_proj": Place("layers.{}.mlp.Wo.weight")}
    | at("layers.{}.", {"input_ln": "attn_norm.weight", "post_attn_ln": "mlp_norm.weight"}),
    outside={
        "embedding": ("embeddings.tok_embeddings.weight",),
        "embedding_ln": ("embeddings.norm.weight",),
        "final_ln": ("final_norm.weight",),
    },
    layer_norm=True,
    kinds=(Kind(name="no norm in front of attention", shown_by="config: first_layer=0", lacks=("input_ln",)),),
    tied=True,
    final_norm="final_norm",
    attention="attn",
    **_OWN,
)
MOSHI = replace(
    LLAMA,
    name="Moshi",
    model_types=("moshi",),
    tensors=at("layers.{}.self_attn.", {f"{x}_proj": f"{x}_proj.linear.weight" for x in "qkvo"})
    | NORMS
    | fused("layers.{}.mlp.fc1.weight", HALVES)
    | {"down_proj": Place("layers.{}.mlp.fc2.weight")},
    width_shown=True,
    **_OWN,
)

RECORDS = (
    LLAMA, ALIKE, MINISTRAL3, PAIRED, ERNIE45, QWEN2, QWEN3, HUNYUAN, GEMMA, GEMMA2, GEMMA3, VAULTGEMMA, PHI3,
    GEMMA4, OLMO, OLMO2, OLMO3, EXAONE4, SMOLLM3, GRANITE, GRANITE_SWA, HYPERCLOVAX, ARCEE, APERTUS, NANOCHAT, JAIS2, NEMOTRON,
    STARCODER2, COHERE, COHERE2, GLM, GLM4, BITNET, MODERNBERT_DECODER, MOSHI, DOGE,
)  # fmt: skip
