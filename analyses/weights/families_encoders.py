"""Encoders: BERT, those that share its names, and DistilBERT, ALBERT, DeBERTa and ModernBERT."""

from dataclasses import replace

from analyses.weights.families_gpt import _POST_NORM_NOTE
from analyses.weights.families_llama import MODERNBERT_DECODER
from analyses.weights.families_parts import ALL_BIASES, BEHIND, LINEAR_NORM, NO_QK_NORM, QKV, UNGATED, at, fused
from analyses.weights.layouts import ROWS
from analyses.weights.schema import Architecture, Place

_BERT_NORM = "encoder.layer.{}.attention.output.LayerNorm."
BERT = Architecture(
    name="BERT",
    model_types=("bert",),
    tensors=at(
        "encoder.layer.{}.attention.",
        {
            "q_proj": "self.query.weight",
            "k_proj": "self.key.weight",
            "v_proj": "self.value.weight",
            "o_proj": "output.dense.weight",
        },
    )
    | at("encoder.layer.{}.", {"up_proj": "intermediate.dense.weight", "down_proj": "output.dense.weight"})
    | {"post_attn_ln": Place(_BERT_NORM + "weight")},
    also=(
        {"post_attn_ln": Place(_BERT_NORM + "gamma"), "ffn_out_ln": Place("encoder.layer.{}.output.LayerNorm.gamma")},
    ),
    absent=UNGATED | NO_QK_NORM | BEHIND,
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
    biases=tuple(b for b in ALL_BIASES if b != "input_ln"),
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
    **LINEAR_NORM,
)

ROBERTA = replace(
    BERT,
    name="RoBERTa",
    model_types=("roberta", "xlm-roberta", "camembert"),
    by_name=False,
    zero_padding=("embedding", "positions"),
)

_OWN = {"by_name": False}
BERT_ALIKE = replace(
    BERT,
    name="BERT, other types",
    model_types=("ernie", "electra", "bert-generation", "rembert", "git"),
    head=BERT.head | {"head_bias": ("generator_lm_head.bias",)},
    **_OWN,
)
DATA2VEC = replace(ROBERTA, name="data2vec", model_types=("data2vec-text",))
ROFORMER = replace(BERT, name="RoFormer", model_types=("roformer",), rotary="pairs", **_OWN)
_PRE_NORM = {
    "absent": UNGATED | NO_QK_NORM,
    "further": {},
    "also": (),
    "biases": ALL_BIASES,
    "post_norm": False,
    "notes": (),
}


def _pre_norm(name: str, model_type: str, first: str, second: str, final: str) -> Architecture:
    """A relative of BERT whose norms stand in front of the branches."""
    norms = at("encoder.layer.{}.", {"input_ln": first, "post_attn_ln": second})
    outside = {part: names for part, names in BERT.outside.items() if part != "embedding_ln"}
    return replace(
        BERT,
        name=name,
        model_types=(model_type,),
        tensors=BERT.tensors | norms,
        outside=outside | {"final_ln": (f"{final}.weight",)},
        final_norm=final,
        **_PRE_NORM,
        **_OWN,
    )


MEGATRON_BERT = _pre_norm("Megatron-BERT", "megatron-bert", "attention.ln.weight", "ln.weight", "encoder.ln")
ROBERTA_PRE_NORM = _pre_norm(
    "RoBERTa, pre-norm",
    "roberta-prelayernorm",
    "attention.LayerNorm.weight",
    "intermediate.LayerNorm.weight",
    "LayerNorm",
)
XLM_ROBERTA_XL = _pre_norm(
    "XLM-RoBERTa-XL",
    "xlm-roberta-xl",
    "attention.self_attn_layer_norm.weight",
    "LayerNorm.weight",
    "encoder.LayerNorm",
)

# --- encoders with names of their own ---------------------------------------------------------------

_EMBEDDED = {part: BERT.outside[part] for part in ("embedding", "positions", "embedding_ln")}
DISTILBERT = replace(
    BERT,
    name="DistilBERT",
    model_types=("distilbert",),
    tensors=at(
        "transformer.layer.{}.",
        {
            "q_proj": "attention.q_lin.weight",
            "k_proj": "attention.k_lin.weight",
            "v_proj": "attention.v_lin.weight",
            "o_proj": "attention.out_lin.weight",
            "up_proj": "ffn.lin1.weight",
            "down_proj": "ffn.lin2.weight",
            "post_attn_ln": "sa_layer_norm.weight",
        },
    ),
    also=(),
    further={"ffn_out_ln": Place("transformer.layer.{}.output_layer_norm.weight")},
    outside=_EMBEDDED,
    head={
        "head": ("vocab_projector.weight",),
        "head_transform": ("vocab_transform.weight",),
        "head_ln": ("vocab_layer_norm.weight",),
    },
    size_keys={"hidden": "dim", "feed_forward": "hidden_dim"},
    layers="transformer.layer",
    attention="attention",
    feed_forward="ffn",
    attention_branch="",
    **_OWN,
)
_ALBERT_LAYER = "encoder.albert_layer_groups.{}.albert_layers.0."
ALBERT = replace(
    BERT,
    name="ALBERT",
    model_types=("albert",),
    tensors=at(
        _ALBERT_LAYER,
        {
            "q_proj": "attention.query.weight",
            "k_proj": "attention.key.weight",
            "v_proj": "attention.value.weight",
            "o_proj": "attention.dense.weight",
            "up_proj": "ffn.weight",
            "down_proj": "ffn_output.weight",
            "post_attn_ln": "attention.LayerNorm.weight",
        },
    ),
    also=(),
    further={"ffn_out_ln": Place(_ALBERT_LAYER + "full_layer_layer_norm.weight")},
    outside=BERT.outside
    | {"project_in": ("encoder.embedding_hidden_mapping_in.weight",), "pooler": ("pooler.weight",)},
    head={
        "head": ("predictions.decoder.weight",),
        "head_own_bias": ("predictions.bias",),
        "head_transform": ("predictions.dense.weight",),
        "head_ln": ("predictions.LayerNorm.weight",),
    },
    groups="num_hidden_groups",
    layers="encoder.albert_layer_groups",
    attention="albert_layers.0.attention",
    feed_forward="albert_layers.0.ffn_output",
    attention_branch="albert_layers.0.attention.dense",
    notes=(
        *BERT.notes,
        "layers share their weights: adjacent ones are equal, which is how the model was made and no finding about it",
    ),
    **_OWN,
)
DEBERTA_V2 = replace(
    BERT,
    name="DeBERTa-v2",
    model_types=("deberta-v2",),
    tensors=BERT.tensors
    | at(
        "encoder.layer.{}.attention.self.",
        {"q_proj": "query_proj.weight", "k_proj": "key_proj.weight", "v_proj": "value_proj.weight"},
    ),
    also=(),
    head=BERT.head | {"head_transform": ("lm_predictions.lm_head.dense.weight", *BERT.head["head_transform"])},
    positions=(
        "Positions meet queries and keys in terms of the logits of their own: g is the metric between contents, the "
        "dynamic statistics have the whole logits."
    ),
    **_OWN,
)
DEBERTA_V2_CONVOLUTION = replace(
    DEBERTA_V2,
    when={"conv_kernel_size": 3},
    no_pass="a convolution behind the first layer adds to the stream what no layer's branches write",
)
MODERNBERT = replace(
    MODERNBERT_DECODER,
    name="ModernBERT",
    model_types=("modernbert",),
    tensors={role: place for role, place in MODERNBERT_DECODER.tensors.items() if role not in QKV}
    | fused("layers.{}.attn.Wqkv.weight", ROWS),
    head={
        "head": ("decoder.weight",),
        "head_transform": ("head.dense.weight",),
        "head_ln": ("head.norm.weight",),
    },
    encoder=True,
)

RECORDS = (
    BERT, ROBERTA, BERT_ALIKE, DATA2VEC, ROFORMER, MEGATRON_BERT, ROBERTA_PRE_NORM, XLM_ROBERTA_XL,
    DISTILBERT, ALBERT, DEBERTA_V2_CONVOLUTION, DEBERTA_V2, MODERNBERT,
)  # fmt: skip
