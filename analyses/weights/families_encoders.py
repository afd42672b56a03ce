"""Encoders: BERT and those that share its names."""

from dataclasses import replace

from analyses.weights.families_gpt import _POST_NORM_NOTE
from analyses.weights.families_parts import ALL_BIASES, BEHIND, LINEAR_NORM, NO_QK_NORM, UNGATED, at
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

RECORDS = (BERT, ROBERTA, BERT_ALIKE, DATA2VEC, ROFORMER, MEGATRON_BERT, ROBERTA_PRE_NORM, XLM_ROBERTA_XL)
