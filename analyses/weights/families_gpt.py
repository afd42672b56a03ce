"""Decoders with LayerNorm, most of them older: GPT-2 and its kin, StableLM, Phi, OPT, BLOOM, Falcon."""

from dataclasses import replace
from typing import Any

from analyses.weights.families_llama import LLAMA
from analyses.weights.families_parts import (
    ALL_BIASES,
    BEHIND,
    HEAD,
    LINEAR_NORM,
    MEGATRON,
    NO_QK_NORM,
    NORMS,
    ONE_NORM,
    PARALLEL,
    QKV,
    UNGATED,
    at,
    fused,
    parallel,
)
from analyses.weights.layouts import CODEGEN, GROUPED, INTERLEAVED, ROWS, TRANSPOSED, TRANSPOSED_ROWS
from analyses.weights.schema import Architecture, Place

STABLELM = replace(
    LLAMA,
    name="StableLM",
    model_types=("stablelm",),
    tensors=LLAMA.tensors
    | at(
        "layers.{}.self_attn.",
        {"q_norm": "q_layernorm.norms.{part}.weight", "k_norm": "k_layernorm.norms.{part}.weight"},
    ),
    absent={},
    optional={k: "this checkpoint's config switches q/k norms off" for k in ("q_norm", "k_norm")},
    layer_norm=True,
    qk_norm="own per head",
    qk_layer_norm=True,
    biases=("input_ln", "post_attn_ln"),
    rotary_fraction=0.25,
)
STABLELM_PARALLEL = parallel(STABLELM, when={"use_parallel_residual": True})

PHI = Architecture(
    name="Phi",
    model_types=("phi",),
    tensors=at("layers.{}.self_attn.", QKV | {"o_proj": "dense.weight"})
    | at("layers.{}.mlp.", {"up_proj": "fc1.weight", "down_proj": "fc2.weight"})
    | {"input_ln": Place("layers.{}.input_layernorm.weight")}
    | at("layers.{}.self_attn.", {"q_norm": "q_layernorm.weight", "k_norm": "k_layernorm.weight"}),
    absent=UNGATED | ONE_NORM,
    optional=STABLELM.optional,
    outside={"embedding": ("embed_tokens.weight",), "final_ln": ("final_layernorm.weight",)},
    head=HEAD,
    qk_norm="per head",
    qk_layer_norm=True,
    biases=("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "input_ln"),
    rotary_fraction=0.5,
    final_norm="final_layernorm",
    **PARALLEL,
    **LINEAR_NORM,
)

GPT2 = Architecture(
    name="GPT-2",
    model_types=("gpt2",),
    tensors=fused("h.{}.attn.c_attn.weight", TRANSPOSED_ROWS)
    | at("h.{}.", {"input_ln": "ln_1.weight", "post_attn_ln": "ln_2.weight"})
    | at(
        "h.{}.",
        {"o_proj": "attn.c_proj.weight", "up_proj": "mlp.c_fc.weight", "down_proj": "mlp.c_proj.weight"},
        TRANSPOSED,
    ),
    absent=UNGATED | NO_QK_NORM,
    outside={"embedding": ("wte.weight",), "positions": ("wpe.weight",), "final_ln": ("ln_f.weight",)},
    head=HEAD,
    wide=4,
    zero_padding=(),
    biases=ALL_BIASES,
    rotary=None,
    tied=True,
    scaled_writes=True,
    layers="h",
    final_norm="ln_f",
    attention="attn",
    **LINEAR_NORM,
)
GPTJ = parallel(
    Architecture(
        name="GPT-J",
        model_types=("gptj",),
        tensors=at("h.{}.attn.", QKV | {"o_proj": "out_proj.weight"})
        | at("h.{}.", {"up_proj": "mlp.fc_in.weight", "down_proj": "mlp.fc_out.weight", "input_ln": "ln_1.weight"}),
        absent=UNGATED | NO_QK_NORM,
        outside={"embedding": ("wte.weight",), "final_ln": ("ln_f.weight",)},
        head=HEAD,
        wide=4,
        zero_padding=(),
        biases=("up_proj", "down_proj", "input_ln"),
        rotary="pairs",
        rotary_key="rotary_dim",
        layers="h",
        final_norm="ln_f",
        attention="attn",
        **LINEAR_NORM,
    )
)
_NEOX_SEQUENTIAL = Architecture(
    name="GPT-NeoX",
    model_types=("gpt_neox",),
    when={"use_parallel_residual": False},
    tensors=fused("layers.{}.attention.query_key_value.weight", INTERLEAVED)
    | {"o_proj": Place("layers.{}.attention.dense.weight")}
    | at("layers.{}.mlp.", MEGATRON)
    | NORMS,
    absent=UNGATED | NO_QK_NORM,
    outside={"embedding": ("embed_in.weight",), "final_ln": ("final_layer_norm.weight",)},
    head={"head": ("embed_out.weight", "lm_head.weight")},
    zero_padding=(),
    biases=ALL_BIASES,
    rotary_fraction=0.25,
    final_norm="final_layer_norm",
    attention="attention",
    **LINEAR_NORM,
)
GPT_NEOX = replace(_NEOX_SEQUENTIAL, when={}, parallel=True)
BLOOM = Architecture(
    name="BLOOM",
    model_types=("bloom",),
    tensors=fused("h.{}.self_attention.query_key_value.weight", INTERLEAVED)
    | {"o_proj": Place("h.{}.self_attention.dense.weight")}
    | at("h.{}.mlp.", MEGATRON)
    | at("h.{}.", {"input_ln": "input_layernorm.weight", "post_attn_ln": "post_attention_layernorm.weight"}),
    absent=UNGATED | NO_QK_NORM,
    outside={
        "embedding": ("word_embeddings.weight",),
        "embedding_ln": ("word_embeddings_layernorm.weight",),
        "final_ln": ("ln_f.weight",),
    },
    head=HEAD,
    wide=4,
    zero_padding=(),
    biases=ALL_BIASES,
    rotary=None,
    tied=True,
    layers="h",
    final_norm="ln_f",
    attention="self_attention",
    attention_branch="self_attention.dense",  # the module itself adds the stream to what it returns
    feed_forward_branch="mlp.dense_4h_to_h",
    **LINEAR_NORM,
)
OPT = Architecture(
    name="OPT",
    model_types=("opt",),
    tensors=at("layers.{}.self_attn.", QKV | {"o_proj": "out_proj.weight"})
    | at("layers.{}.", {"up_proj": "fc1.weight", "down_proj": "fc2.weight"})
    | at("layers.{}.", {"input_ln": "self_attn_layer_norm.weight", "post_attn_ln": "final_layer_norm.weight"}),
    absent=UNGATED | NO_QK_NORM,
    outside={
        "embedding": ("embed_tokens.weight",),
        "positions": ("embed_positions.weight",),
        "final_ln": ("final_layer_norm.weight",),
        "project_in": ("project_in.weight",),
        "project_out": ("project_out.weight",),
    },
    head=HEAD,
    biases=ALL_BIASES,
    rotary=None,
    tied=True,
    layers="decoder.layers",
    final_norm="decoder.final_layer_norm",
    feed_forward="fc2",
    **LINEAR_NORM,
)
_POST_NORM_NOTE = (
    "post-norm: the residual stream itself is normalised behind each branch, so that a layer's write is not the sum "
    "of its branches"
)
OPT_POST_NORM = replace(
    OPT,
    when={"do_layer_norm_before": False},
    tensors={role: place for role, place in OPT.tensors.items() if role != "input_ln"}
    | {"post_attn_ln": Place("layers.{}.self_attn_layer_norm.weight")},
    absent=OPT.absent | BEHIND,
    further={"ffn_out_ln": Place("layers.{}.final_layer_norm.weight")},
    biases=tuple(b for b in ALL_BIASES if b != "input_ln"),
    post_norm=True,
    final_norm=None,
    notes=(_POST_NORM_NOTE,),
)

# --- Falcon: two decoder styles, with one key/value head, all, or groups ------------------------

_FALCON_SEQUENTIAL = replace(
    BLOOM,
    name="Falcon",
    model_types=("falcon", "RefinedWeb", "RefinedWebModel"),
    when={"parallel_attn": False, "multi_query": False},
    outside={"embedding": ("word_embeddings.weight",), "final_ln": ("ln_f.weight",)},
    biases=("input_ln", "post_attn_ln"),
    rotary="halves",
    attention_branch="",
    feed_forward_branch="",
)
_FALCON_PARALLEL = parallel(_FALCON_SEQUENTIAL)
_GROUPS = fused("h.{}.self_attention.query_key_value.weight", GROUPED)


def _grouped(record: Architecture, **changes: Any) -> Architecture:
    return replace(record, tensors=record.tensors | _GROUPS, **changes)


_ONE_KEY = {"size_keys": {"kv_heads": 1}}
FALCON_NEW = replace(
    _FALCON_SEQUENTIAL,
    name="Falcon, new decoder",
    when={"new_decoder_architecture": True},
    tensors=_FALCON_SEQUENTIAL.tensors
    | _GROUPS
    | at("h.{}.", {"input_ln": "ln_attn.weight", "post_attn_ln": "ln_mlp.weight"}),
    parallel=True,
)
FALCON = (
    _grouped(
        _FALCON_PARALLEL,
        name="Falcon, new decoder",
        when={"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
    ),
    FALCON_NEW,
    _FALCON_SEQUENTIAL,
    _grouped(_FALCON_SEQUENTIAL, when={"parallel_attn": False}, **_ONE_KEY),
    replace(_FALCON_PARALLEL, when={"multi_query": False}),
    _grouped(_FALCON_PARALLEL, when={}, **_ONE_KEY),
)

# --- relatives of GPT-2 and GPT-NeoX ------------------------------------------------------------------

_OWN = {"by_name": False}
GPT_BIGCODE = replace(
    GPT2,
    name="GPT-BigCode",
    model_types=("gpt_bigcode",),
    when={"multi_query": False},
    tensors=fused("h.{}.attn.c_attn.weight", INTERLEAVED)
    | at("h.{}.", {"input_ln": "ln_1.weight", "post_attn_ln": "ln_2.weight"})
    | at("h.{}.", {"o_proj": "attn.c_proj.weight", "up_proj": "mlp.c_fc.weight", "down_proj": "mlp.c_proj.weight"}),
    scaled_writes=False,
    **_OWN,
)
GPT_BIGCODE_ONE_KEY = replace(
    GPT_BIGCODE, when={}, tensors=GPT_BIGCODE.tensors | fused("h.{}.attn.c_attn.weight", ROWS), **_ONE_KEY
)
GPT_NEO = replace(
    GPT2,
    name="GPT-Neo",
    model_types=("gpt_neo",),
    tensors=at("h.{}.attn.attention.", QKV | {"o_proj": "out_proj.weight"})
    | at("h.{}.", {"input_ln": "ln_1.weight", "post_attn_ln": "ln_2.weight"})
    | at("h.{}.mlp.", {"up_proj": "c_fc.weight", "down_proj": "c_proj.weight"}),
    biases=("o_proj", "up_proj", "down_proj", "input_ln", "post_attn_ln"),
    size_keys={"heads": "num_heads"},
    scaled_writes=False,
    attention="attn.attention",
    **_OWN,
)
CODEGEN_RECORD = replace(
    GPTJ,
    name="CodeGen",
    model_types=("codegen",),
    tensors=GPTJ.tensors | fused("h.{}.attn.qkv_proj.weight", CODEGEN),
    **_OWN,
)
MPT = replace(
    BLOOM,
    name="MPT",
    model_types=("mpt",),
    tensors=fused("blocks.{}.attn.Wqkv.weight", ROWS)
    | at("blocks.{}.", {"input_ln": "norm_1.weight", "post_attn_ln": "norm_2.weight"})
    | at(
        "blocks.{}.",
        {"o_proj": "attn.out_proj.weight", "up_proj": "ffn.up_proj.weight", "down_proj": "ffn.down_proj.weight"},
    ),
    outside={"embedding": ("wte.weight",), "final_ln": ("norm_f.weight",)},
    biases=(),
    size_keys={"kv_heads": "n_heads"},
    layers="blocks",
    final_norm="norm_f",
    attention="attn",
    feed_forward="ffn",
    attention_branch="",
    feed_forward_branch="ffn.down_proj",
    **_OWN,
)
PERSIMMON = replace(
    GPT_NEOX,
    name="Persimmon",
    model_types=("persimmon", "fuyu"),
    when={},
    tensors=fused("layers.{}.self_attn.query_key_value.weight", INTERLEAVED)
    | {"o_proj": Place("layers.{}.self_attn.dense.weight")}
    | at("layers.{}.mlp.", MEGATRON)
    | NORMS
    | at("layers.{}.self_attn.", {"q_norm": "q_layernorm.weight", "k_norm": "k_layernorm.weight"}),
    absent=UNGATED,
    optional={k: "this checkpoint's config switches q/k norms off" for k in ("q_norm", "k_norm")},
    outside={"embedding": ("embed_tokens.weight",), "final_ln": ("final_layernorm.weight",)},
    head=HEAD,
    qk_norm="per head",
    qk_layer_norm=True,
    parallel=False,
    rotary_fraction=0.5,
    final_norm="final_layernorm",
    attention="self_attn",
    **_OWN,
)
GPT_NEOX_JAPANESE = replace(
    GPT_NEOX,
    name="GPT-NeoX Japanese",
    model_types=("gpt_neox_japanese",),
    biases=("input_ln", "post_attn_ln"),
    parallel=False,
    unsummed="the last layer adds a bias to what its attention writes that is none of the attention's own",
    size_keys={"feed_forward": "intermediate_multiple_size"},
    width_shown=True,
    **_OWN,
)
XGLM = replace(
    OPT,
    name="XGLM",
    model_types=("xglm",),
    outside={"embedding": ("embed_tokens.weight",), "final_ln": ("layer_norm.weight",)},
    rotary=None,
    size_keys={"heads": "attention_heads"},
    layers="layers",
    final_norm="layer_norm",
    **_OWN,
)
BIOGPT = replace(
    XGLM,
    name="BioGPT",
    model_types=("biogpt",),
    outside=XGLM.outside | {"positions": ("embed_positions.weight",)},
    size_keys={},
)
OPENAI_GPT = replace(
    GPT2,
    name="GPT",
    model_types=("openai-gpt",),
    tensors={role: place for role, place in GPT2.tensors.items() if not role.endswith("_ln")}
    | {"post_attn_ln": Place("h.{}.ln_1.weight")},
    absent=GPT2.absent | BEHIND,
    further={"ffn_out_ln": Place("h.{}.ln_2.weight")},
    outside={"embedding": ("tokens_embed.weight",), "positions": ("positions_embed.weight",)},
    biases=tuple(b for b in ALL_BIASES if b != "input_ln"),
    post_norm=True,
    final_norm=None,
    notes=(_POST_NORM_NOTE,),
    **_OWN,
)
CTRL = replace(
    GPT2,
    name="CTRL",
    model_types=("ctrl",),
    tensors=at(
        "h.{}.multi_head_attention.",
        {"q_proj": "Wq.weight", "k_proj": "Wk.weight", "v_proj": "Wv.weight", "o_proj": "dense.weight"},
    )
    | at(
        "h.{}.",
        {
            "up_proj": "ffn.0.weight",
            "down_proj": "ffn.2.weight",
            "input_ln": "layernorm1.weight",
            "post_attn_ln": "layernorm2.weight",
        },
    ),
    outside={"embedding": ("w.weight",), "final_ln": ("layernorm.weight",)},
    size_keys={"feed_forward": "dff"},
    scaled_writes=False,
    final_norm="layernorm",
    attention="multi_head_attention",
    feed_forward="ffn",
    **_OWN,
)

RECORDS = (
    STABLELM_PARALLEL, STABLELM, PHI, GPT2, GPTJ, _NEOX_SEQUENTIAL, GPT_NEOX, OPT_POST_NORM, OPT, BLOOM, *FALCON,
    GPT_BIGCODE, GPT_BIGCODE_ONE_KEY, GPT_NEO, CODEGEN_RECORD, MPT, PERSIMMON, GPT_NEOX_JAPANESE, XGLM, BIOGPT,
    OPENAI_GPT, CTRL,
)  # fmt: skip
