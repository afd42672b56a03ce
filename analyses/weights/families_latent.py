"""Decoders with latent attention: queries and keys pass through a bottleneck, and so are products of two factors."""

from dataclasses import replace

from analyses.weights.families_llama import LLAMA
from analyses.weights.families_parts import HEADS, MLP, NO_QK_NORM, NORMS, W123, at, dense_layers, experts
from analyses.weights.schema import Kind, Place

_NOTE = (
    "attention is latent: W_q, W_k and W_v are products of their factors, with the gains of norms between them; "
    "what positions turn of a key is one for all heads and passes no norm"
)
_FACTORS = at(
    "layers.{}.self_attn.",
    {
        "q_down": "q_a_proj.weight",
        "q_latent_ln": "q_a_layernorm.weight",
        "kv_down": "kv_a_proj_with_mqa.weight",
        "kv_latent_ln": "kv_a_layernorm.weight",
    },
)
_HEADS = at(
    "layers.{}.self_attn.",
    {
        "q_proj": "q_b_proj.weight",
        "k_proj": "kv_b_proj.weight",
        "v_proj": "kv_b_proj.weight",
        "o_proj": "o_proj.weight",
    },
)
MINICPM3 = replace(
    LLAMA,
    name="MiniCPM 3",
    model_types=("minicpm3",),
    tensors=_HEADS | MLP | NORMS,
    also=({"q_proj": Place("layers.{}.self_attn.q_proj.weight")},),
    absent=NO_QK_NORM,
    further=_FACTORS,
    size_keys={"kv_heads": "num_attention_heads"},
    latent=True,
    by_name=False,
    unsummed="what a branch writes is scaled by the number of layers",
    notes=(_NOTE,),
)
YOUTU = replace(MINICPM3, name="Youtu", model_types=("youtu",), rotary="pairs", unsummed=None)
DEEPSEEK = experts(
    YOUTU,
    name="DeepSeek",
    model_types=("deepseek_v2", "deepseek_v3", "kimi_k2"),
    shared="shared_experts",
    size_keys={"kv_heads": "num_attention_heads", "feed_forward": "moe_intermediate_size"},
)
GLM4_LITE = replace(DEEPSEEK, name="GLM-4-MoE, lite", model_types=("glm4_moe_lite",))
DEEPSEEK32 = replace(
    DEEPSEEK,
    name="DeepSeek V3.2",
    model_types=("deepseek_v32", "glm_moe_dsa"),
    notes=(*DEEPSEEK.notes, "an index that is not measured chooses the keys that a query sees"),
)
_DENSE = dense_layers()
AXK1 = replace(
    DEEPSEEK,
    name="A.X K1",
    model_types=("axk1",),
    further=DEEPSEEK.further | {"ffn_out_ln": Place("layers.{}.post_mlp_layernorm.weight")},
    kinds=(replace(_DENSE, lacks=(*_DENSE.lacks, "ffn_out_ln")),),
)

_CHOICE = "layers.{}.block_sparse_moe."
KIMI_LINEAR = experts(
    MINICPM3,
    name="Kimi-Linear",
    model_types=("kimi_linear",),
    stem=_CHOICE,
    names=W123,
    shared="shared_experts",
    size_keys={"kv_heads": "num_attention_heads", "feed_forward": "moe_intermediate_size"},
    rotary=None,
    unplaced=True,
    unsummed=None,
    kinds=(
        *(dense_layers(stem) for stem in (_CHOICE, "layers.{}.mlp.")),
        Kind(
            name="linear attention",
            shown_by="layers.{}.self_attn.A_log",
            lacks=(*HEADS, *_FACTORS),
            attention="self_attn",
        ),
    ),
)

RECORDS = (MINICPM3, YOUTU, DEEPSEEK, GLM4_LITE, DEEPSEEK32, AXK1, KIMI_LINEAR)
