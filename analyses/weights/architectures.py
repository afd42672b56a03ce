"""Tensor names and properties of every supported model family: data, and one look-up.

Names are those on disk, behind the base model's prefix. `input_ln` is the gain of the norm that
attention reads, `post_attn_ln` of the one that the feed-forward reads; norms behind a branch are
further roles. To add a family: one more record in ARCHITECTURES, most easily as a relative of another.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from analyses.errors import InputError
from analyses.weights.layouts import (
    GROUPED,
    HALVES,
    INTERLEAVED,
    PLAIN,
    ROWS,
    STACKED,
    STACKED_HALVES,
    TRANSPOSED,
    TRANSPOSED_ROWS,
    Layout,
)
from analyses.weights.schema import FAMILIES, FEED_FORWARD, GAINS, MATRICES, Architecture, Place

__all__ = ["ARCHITECTURES", "FAMILIES", "FEED_FORWARD", "GAINS", "MATRICES", "Architecture", "architecture"]


def _at(stem: str, names: Mapping[str, str], layout: Layout = PLAIN) -> dict[str, Place]:
    """Role → place for names that share a stem and a layout."""
    return {role: Place(stem + name, layout) for role, name in names.items()}


def _fused(name: str, layout: Layout) -> dict[str, Place]:
    return dict.fromkeys(layout.roles, Place(name, layout))


# --- decoders with RMSNorm and a gated feed-forward ---------------------------------------------

_QKV = {"q_proj": "q_proj.weight", "k_proj": "k_proj.weight", "v_proj": "v_proj.weight"}
_GATED = {"gate_proj": "gate_proj.weight", "up_proj": "up_proj.weight", "down_proj": "down_proj.weight"}
_ATTENTION = _at("layers.{}.self_attn.", _QKV | {"o_proj": "o_proj.weight"})
_MLP = _at("layers.{}.mlp.", _GATED)
_NORMS = _at("layers.{}.", {"input_ln": "input_layernorm.weight", "post_attn_ln": "post_attention_layernorm.weight"})
_QK_NORMS = _at("layers.{}.self_attn.", {"q_norm": "q_norm.weight", "k_norm": "k_norm.weight"})
_NO_QK_NORM = {
    "q_norm": "this architecture does not normalise queries",
    "k_norm": "this architecture does not normalise keys",
}
_UNGATED = {"gate_proj": "the feed-forward of this architecture is not gated"}
_ONE_NORM = {"post_attn_ln": "attention and feed-forward are parallel and read the same norm"}
_BEHIND = {"input_ln": "norms stand behind the branches: what attention reads, a norm of the layer before has scaled"}
_OUTSIDE = {"embedding": ("embed_tokens.weight",), "final_ln": ("norm.weight",)}
_HEAD = {"head": ("lm_head.weight",)}

LLAMA = Architecture(
    name="Llama",
    model_types=("llama", "mistral"),
    tensors=_ATTENTION | _MLP | _NORMS,
    absent=_NO_QK_NORM,
    outside=_OUTSIDE,
    head=_HEAD,
)
QWEN2 = replace(LLAMA, name="Qwen2", model_types=("qwen2",), biases=("q_proj", "k_proj", "v_proj"))
QWEN3 = replace(
    LLAMA, name="Qwen3", model_types=("qwen3",), tensors=LLAMA.tensors | _QK_NORMS, absent={}, qk_norm="per head"
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
    | _fused("layers.{}.self_attn.qkv_proj.weight", ROWS)
    | _fused("layers.{}.mlp.gate_up_proj.weight", HALVES),
)
OLMO = replace(
    LLAMA,
    name="OLMo",
    model_types=("olmo",),
    tensors=_ATTENTION | _MLP,
    absent=_NO_QK_NORM
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
    tensors=_ATTENTION | _MLP | _QK_NORMS,
    absent={
        "input_ln": "attention reads the stream as it is; the norm stands behind it",
        "post_attn_ln": "the feed-forward reads the stream as it is; the norm stands behind it",
    },
    further=_at(
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
    tensors=_ATTENTION
    | _MLP
    | _at("layers.{}.", {"input_ln": "input_layernorm.weight", "post_attn_ln": "pre_feedforward_layernorm.weight"}),
    further=OLMO2.further,
    attention_branch="post_attention_layernorm",
    feed_forward_branch="post_feedforward_layernorm",
    notes=(*OLMO2.notes, "post_attn_ln is the gain that the feed-forward reads, stored as pre_feedforward_layernorm"),
)
GEMMA3 = replace(
    GEMMA2,
    name="Gemma 3",
    model_types=("gemma3_text", "gemma3"),
    tensors=GEMMA2.tensors | _QK_NORMS,
    absent={},
    qk_norm="per head",
    missing_sizes=_GEMMA_SIZES | {"heads": 8, "kv_heads": 4},
)

# --- choices of experts -------------------------------------------------------------------------

_EXPERTS_NOTE = (
    "experts are compared index by index: an arbitrary pairing, since their order is a free permutation; n counts them"
)
_STACKED_EXPERTS = {
    **_fused("layers.{}.mlp.experts.gate_up_proj", STACKED_HALVES),
    "down_proj": Place("layers.{}.mlp.experts.down_proj", STACKED),
    "router": Place("layers.{}.mlp.gate.weight"),
}
QWEN3_MOE = replace(
    QWEN3,
    name="Qwen3-MoE",
    model_types=("qwen3_moe",),
    tensors=_ATTENTION | _NORMS | _QK_NORMS | _at("layers.{}.mlp.experts.{part}.", _GATED),
    also=(_STACKED_EXPERTS,),
    further={"router": Place("layers.{}.mlp.gate.weight")},
    size_keys={"feed_forward": "moe_intermediate_size"},
    experts=True,
    notes=(_EXPERTS_NOTE,),
)
MIXTRAL = replace(
    LLAMA,
    name="Mixtral",
    model_types=("mixtral",),
    tensors=_ATTENTION
    | _NORMS
    | _at(
        "layers.{}.block_sparse_moe.experts.{part}.",
        {"gate_proj": "w1.weight", "up_proj": "w3.weight", "down_proj": "w2.weight"},
    ),
    also=(_STACKED_EXPERTS,),
    further={"router": Place("layers.{}.block_sparse_moe.gate.weight")},
    experts=True,
    notes=(_EXPERTS_NOTE,),
)
LATENT = Architecture(
    name="DeepSeek",
    model_types=("deepseek_v2", "deepseek_v3", "deepseek_v32", "minicpm3", "longcat_flash", "kimi_k2"),
    refused="its attention is latent: queries and keys pass through a shared bottleneck, so that no head has a W_q and "
    "a W_k of its own, which most of the analyses are about",
)

# --- LayerNorm, some with parallel branches -----------------------------------------------------

STABLELM = replace(
    LLAMA,
    name="StableLM",
    model_types=("stablelm",),
    tensors=LLAMA.tensors
    | _at(
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
_PARALLEL = {"parallel": True, "feed_forward_norm": "input_ln"}


def _parallel(record: Architecture, **changes: Any) -> Architecture:
    """A relative whose attention and feed-forward read one and the same norm."""
    tensors = {role: place for role, place in record.tensors.items() if role != "post_attn_ln"}
    absent, biases = record.absent | _ONE_NORM, tuple(b for b in record.biases if b != "post_attn_ln")
    return replace(record, tensors=tensors, absent=absent, biases=biases, **_PARALLEL, **changes)


STABLELM_PARALLEL = _parallel(STABLELM, when={"use_parallel_residual": True})
_LINEAR_NORM = {"layer_norm": True, "gated": False}
PHI = Architecture(
    name="Phi",
    model_types=("phi",),
    tensors=_at("layers.{}.self_attn.", _QKV | {"o_proj": "dense.weight"})
    | _at("layers.{}.mlp.", {"up_proj": "fc1.weight", "down_proj": "fc2.weight"})
    | {"input_ln": Place("layers.{}.input_layernorm.weight")}
    | _at("layers.{}.self_attn.", {"q_norm": "q_layernorm.weight", "k_norm": "k_layernorm.weight"}),
    absent=_UNGATED | _ONE_NORM,
    optional=STABLELM.optional,
    outside={"embedding": ("embed_tokens.weight",), "final_ln": ("final_layernorm.weight",)},
    head=_HEAD,
    qk_norm="per head",
    qk_layer_norm=True,
    biases=("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "input_ln"),
    rotary_fraction=0.5,
    final_norm="final_layernorm",
    **_PARALLEL,
    **_LINEAR_NORM,
)

_ALL_BIASES = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "input_ln", "post_attn_ln")
GPT2 = Architecture(
    name="GPT-2",
    model_types=("gpt2",),
    tensors=_fused("h.{}.attn.c_attn.weight", TRANSPOSED_ROWS)
    | _at("h.{}.", {"input_ln": "ln_1.weight", "post_attn_ln": "ln_2.weight"})
    | _at(
        "h.{}.",
        {"o_proj": "attn.c_proj.weight", "up_proj": "mlp.c_fc.weight", "down_proj": "mlp.c_proj.weight"},
        TRANSPOSED,
    ),
    absent=_UNGATED | _NO_QK_NORM,
    outside={"embedding": ("wte.weight",), "positions": ("wpe.weight",), "final_ln": ("ln_f.weight",)},
    head=_HEAD,
    wide=4,
    zero_padding=(),
    biases=_ALL_BIASES,
    rotary=None,
    tied=True,
    scaled_writes=True,
    layers="h",
    final_norm="ln_f",
    attention="attn",
    **_LINEAR_NORM,
)
GPTJ = _parallel(
    Architecture(
        name="GPT-J",
        model_types=("gptj",),
        tensors=_at("h.{}.attn.", _QKV | {"o_proj": "out_proj.weight"})
        | _at("h.{}.", {"up_proj": "mlp.fc_in.weight", "down_proj": "mlp.fc_out.weight", "input_ln": "ln_1.weight"}),
        absent=_UNGATED | _NO_QK_NORM,
        outside={"embedding": ("wte.weight",), "final_ln": ("ln_f.weight",)},
        head=_HEAD,
        wide=4,
        zero_padding=(),
        biases=("up_proj", "down_proj", "input_ln"),
        rotary="pairs",
        layers="h",
        final_norm="ln_f",
        attention="attn",
        **_LINEAR_NORM,
    )
)
_MEGATRON = {"up_proj": "dense_h_to_4h.weight", "down_proj": "dense_4h_to_h.weight"}
_NEOX_SEQUENTIAL = Architecture(
    name="GPT-NeoX",
    model_types=("gpt_neox",),
    when={"use_parallel_residual": False},
    tensors=_fused("layers.{}.attention.query_key_value.weight", INTERLEAVED)
    | {"o_proj": Place("layers.{}.attention.dense.weight")}
    | _at("layers.{}.mlp.", _MEGATRON)
    | _NORMS,
    absent=_UNGATED | _NO_QK_NORM,
    outside={"embedding": ("embed_in.weight",), "final_ln": ("final_layer_norm.weight",)},
    head={"head": ("embed_out.weight", "lm_head.weight")},
    zero_padding=(),
    biases=_ALL_BIASES,
    rotary_fraction=0.25,
    final_norm="final_layer_norm",
    attention="attention",
    **_LINEAR_NORM,
)
GPT_NEOX = replace(_NEOX_SEQUENTIAL, when={}, parallel=True)
BLOOM = Architecture(
    name="BLOOM",
    model_types=("bloom",),
    tensors=_fused("h.{}.self_attention.query_key_value.weight", INTERLEAVED)
    | {"o_proj": Place("h.{}.self_attention.dense.weight")}
    | _at("h.{}.mlp.", _MEGATRON)
    | _at("h.{}.", {"input_ln": "input_layernorm.weight", "post_attn_ln": "post_attention_layernorm.weight"}),
    absent=_UNGATED | _NO_QK_NORM,
    outside={
        "embedding": ("word_embeddings.weight",),
        "embedding_ln": ("word_embeddings_layernorm.weight",),
        "final_ln": ("ln_f.weight",),
    },
    head=_HEAD,
    wide=4,
    zero_padding=(),
    biases=_ALL_BIASES,
    rotary=None,
    tied=True,
    layers="h",
    final_norm="ln_f",
    attention="self_attention",
    attention_branch="self_attention.dense",  # the module itself adds the stream to what it returns
    feed_forward_branch="mlp.dense_4h_to_h",
    **_LINEAR_NORM,
)
OPT = Architecture(
    name="OPT",
    model_types=("opt",),
    tensors=_at("layers.{}.self_attn.", _QKV | {"o_proj": "out_proj.weight"})
    | _at("layers.{}.", {"up_proj": "fc1.weight", "down_proj": "fc2.weight"})
    | _at("layers.{}.", {"input_ln": "self_attn_layer_norm.weight", "post_attn_ln": "final_layer_norm.weight"}),
    absent=_UNGATED | _NO_QK_NORM,
    outside={
        "embedding": ("embed_tokens.weight",),
        "positions": ("embed_positions.weight",),
        "final_ln": ("final_layer_norm.weight",),
        "project_in": ("project_in.weight",),
        "project_out": ("project_out.weight",),
    },
    head=_HEAD,
    biases=_ALL_BIASES,
    rotary=None,
    tied=True,
    layers="decoder.layers",
    final_norm="decoder.final_layer_norm",
    feed_forward="fc2",
    **_LINEAR_NORM,
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
    absent=OPT.absent | _BEHIND,
    further={"ffn_out_ln": Place("layers.{}.final_layer_norm.weight")},
    biases=tuple(b for b in _ALL_BIASES if b != "input_ln"),
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
_FALCON_PARALLEL = _parallel(_FALCON_SEQUENTIAL)
_GROUPS = _fused("h.{}.self_attention.query_key_value.weight", GROUPED)


def _grouped(record: Architecture, **changes: Any) -> Architecture:
    return replace(record, tensors=record.tensors | _GROUPS, **changes)


_ONE_KEY = {"size_keys": {"kv_heads": 1}}
FALCON_NEW = replace(
    _FALCON_SEQUENTIAL,
    name="Falcon, new decoder",
    when={"new_decoder_architecture": True},
    tensors=_FALCON_SEQUENTIAL.tensors
    | _GROUPS
    | _at("h.{}.", {"input_ln": "ln_attn.weight", "post_attn_ln": "ln_mlp.weight"}),
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

# --- encoders -----------------------------------------------------------------------------------

_BERT_NORM = "encoder.layer.{}.attention.output.LayerNorm."
BERT = Architecture(
    name="BERT",
    model_types=("bert",),
    tensors=_at(
        "encoder.layer.{}.attention.",
        {
            "q_proj": "self.query.weight",
            "k_proj": "self.key.weight",
            "v_proj": "self.value.weight",
            "o_proj": "output.dense.weight",
        },
    )
    | _at("encoder.layer.{}.", {"up_proj": "intermediate.dense.weight", "down_proj": "output.dense.weight"})
    | {"post_attn_ln": Place(_BERT_NORM + "weight")},
    also=(
        {"post_attn_ln": Place(_BERT_NORM + "gamma"), "ffn_out_ln": Place("encoder.layer.{}.output.LayerNorm.gamma")},
    ),
    absent=_UNGATED | _NO_QK_NORM | _BEHIND,
    further={"ffn_out_ln": Place("encoder.layer.{}.output.LayerNorm.weight")},
    outside={
        "embedding": ("embeddings.word_embeddings.weight",),
        "positions": ("embeddings.position_embeddings.weight",),
        "token_types": ("embeddings.token_type_embeddings.weight",),
        "embedding_ln": ("embeddings.LayerNorm.weight", "embeddings.LayerNorm.gamma"),
        "pooler": ("pooler.dense.weight",),
    },
    head={
        "head": ("cls.predictions.decoder.weight", "lm_head.decoder.weight"),
        "head_own_bias": ("cls.predictions.bias", "lm_head.bias"),
        "head_transform": ("cls.predictions.transform.dense.weight", "lm_head.dense.weight"),
        "head_ln": (
            "cls.predictions.transform.LayerNorm.weight",
            "cls.predictions.transform.LayerNorm.gamma",
            "lm_head.layer_norm.weight",
        ),
        "next_sentence": ("cls.seq_relationship.weight",),
    },
    biases=tuple(b for b in _ALL_BIASES if b != "input_ln"),
    post_norm=True,
    encoder=True,
    rotary=None,
    tied=True,
    layers="encoder.layer",
    final_norm=None,
    attention="attention.self",
    feed_forward="output.dense",
    attention_branch="attention.output.dense",
    notes=(_POST_NORM_NOTE,),
    **_LINEAR_NORM,
)

ROBERTA = replace(
    BERT,
    name="RoBERTa",
    model_types=("roberta", "xlm-roberta", "camembert"),
    by_name=False,
    zero_padding=("embedding", "positions"),
)

ARCHITECTURES = (
    LLAMA, QWEN2, QWEN3, QWEN3_MOE, MIXTRAL, GEMMA, GEMMA2, GEMMA3, PHI3, OLMO, OLMO2, SMOLLM3, GRANITE,
    STABLELM_PARALLEL, STABLELM, PHI, GPT2, GPTJ, _NEOX_SEQUENTIAL, GPT_NEOX, OPT_POST_NORM, OPT, BLOOM,
    *FALCON, BERT, ROBERTA, LATENT,
)  # fmt: skip
"""Of the records of one `model_type`, the first whose `when` the config meets counts."""


def architecture(config: Mapping[str, Any]) -> Architecture | None:
    """The record for a config, by its `model_type`; None if there is none.

    Raises InputError for a family that cannot be measured.
    """
    model_type = config.get("model_type")
    for record in ARCHITECTURES:
        if model_type in record.model_types and all(config.get(k) == v for k, v in record.when.items()):
            if record.refused:
                raise InputError(f"model_type '{model_type}' cannot be measured: {record.refused}")
            return record
    return None
