"""Models of two stacks, encoder and decoder or one for text and one for images: each is an architecture of its own."""

from dataclasses import replace
from typing import Any

from analyses.weights.families_gpt import OPT, OPT_POST_NORM
from analyses.weights.families_parts import ALL_BIASES, LINEAR_NORM, NO_QK_NORM, QKV, UNGATED, at
from analyses.weights.schema import Architecture

_CROSS = "cross-attention, a third branch, is neither run nor measured: the decoder is read as a language model alone"
_BARE_CROSS = "cross-attention, a third branch, is not measured"
_NO_ENCODER = "its layers also read what an encoder makes of another text, which one text does not give"
_SOUND = "its encoder reads sound, and no text"
_IMAGES = "its layers read images, and no text"


def _behind(stack: str, record: Architecture) -> dict[str, Any]:
    """Where a record's tensors are, behind the name of a stack."""
    tensors = {role: replace(place, name=f"{stack}.{place.name}") for role, place in record.tensors.items()}
    further = {role: replace(place, name=f"{stack}.{place.name}") for role, place in record.further.items()}
    return {"tensors": tensors, "further": further, "stack": stack, "by_name": False, "when": {}}


# --- BART and its kin, whose stacks are relatives of OPT ------------------------------------------------


def _of_bart(
    record: Architecture,
    stack: str,
    name: str,
    model_types: tuple[str, ...],
    *,
    final_norm: str | None = None,
    embedding_norm: bool = False,
    **changes: Any,
) -> Architecture:
    """One stack of an encoder-decoder, from a relative of OPT.

    Parameters
    ----------
    final_norm : name of the norm behind the last layer. embedding_norm : whether one stands behind the embedding.
    """
    outside = {"embedding": (f"{stack}.embed_tokens.weight", "shared.weight")}
    outside |= {"positions": (f"{stack}.embed_positions.weight",)}
    if final_norm:
        outside |= {"final_ln": (f"{stack}.{final_norm}.weight",)}
    if embedding_norm:
        outside |= {"embedding_ln": (f"{stack}.layernorm_embedding.weight",)}
    settings = {
        "outside": outside,
        "layers": "layers",
        "final_norm": final_norm,
        "size_keys": {
            "layers": f"{stack}_layers",
            "heads": f"{stack}_attention_heads",
            "feed_forward": f"{stack}_ffn_dim",
        },
        "biases": (),
        "encoder": stack == "encoder",
        "causal_class": stack if stack == "decoder" else "",
        "base_class": stack if stack == "encoder" else "",
        "notes": (*record.notes, *([_CROSS] if stack == "decoder" else [])),
    }
    return replace(record, name=name, model_types=model_types, **_behind(stack, record) | settings | changes)


_OF_BART = ("bart", "blenderbot-small", "marian", "mvp", "plbart")
_OF_PEGASUS = ("blenderbot", "pegasus", "m2m_100")
BART = _of_bart(OPT_POST_NORM, "decoder", "BART", (*_OF_BART, "trocr"), embedding_norm=True)
MBART = _of_bart(OPT, "decoder", "mBART", ("mbart",), final_norm="layer_norm", embedding_norm=True)
PEGASUS = _of_bart(OPT, "decoder", "Pegasus", (*_OF_PEGASUS, "whisper"), final_norm="layer_norm")
BIGBIRD_PEGASUS = _of_bart(OPT, "decoder", "BigBird-Pegasus", ("bigbird_pegasus",), final_norm="layernorm_embedding")
BART_ENCODER = _of_bart(OPT_POST_NORM, "encoder", "BART, encoder", _OF_BART, embedding_norm=True)
MBART_ENCODER = _of_bart(OPT, "encoder", "mBART, encoder", ("mbart",), final_norm="layer_norm", embedding_norm=True)
PEGASUS_ENCODER = _of_bart(OPT, "encoder", "Pegasus, encoder", _OF_PEGASUS, final_norm="layer_norm")
WHISPER_ENCODER = _of_bart(OPT, "encoder", "Whisper, encoder", ("whisper",), final_norm="layer_norm", no_pass=_SOUND)

# --- T5 and its kin ---------------------------------------------------------------------------------------

_T5 = ("t5", "mt5", "umt5")


def _of_t5(stack: str, feed_forward: int, **changes: Any) -> Architecture:
    """One stack of T5, whose feed-forward is so many-th of a layer's parts."""
    first, last = f"{stack}.block.{{}}.layer.0.", f"{stack}.block.{{}}.layer.{feed_forward}."
    written = {"up_proj": "DenseReluDense.wi.weight", "down_proj": "DenseReluDense.wo.weight"}
    plain = Architecture(
        name=f"T5, {stack}",
        model_types=_T5,
        stack=stack,
        tensors=at(
            first, {f"{x}_proj": f"SelfAttention.{x}.weight" for x in "qkvo"} | {"input_ln": "layer_norm.weight"}
        )
        | at(last, written | {"post_attn_ln": "layer_norm.weight"}),
        absent=UNGATED | NO_QK_NORM,
        outside={
            "embedding": ("shared.weight", f"{stack}.embed_tokens.weight"),
            "final_ln": (f"{stack}.final_layer_norm.weight",),
        },
        head={"head": ("lm_head.weight",)},
        size_keys={
            "layers": ("num_decoder_layers", "num_layers") if stack == "decoder" else "num_layers",
            "heads": "num_heads",
            "head_dim": "d_kv",
            "feed_forward": "d_ff",
        },
        by_name=False,
        gated=False,
        rotary=None,
        encoder=stack == "encoder",
        tied=True,
        base_class=stack,
        layers="block",
        final_norm="final_layer_norm",
        attention="layer.0.SelfAttention",
        feed_forward=f"layer.{feed_forward}.DenseReluDense",
        **changes,
    )
    names = {"gate_proj": "DenseReluDense.wi_0.weight", "up_proj": "DenseReluDense.wi_1.weight"}
    gated = replace(plain, tensors=plain.tensors | at(last, names), absent=NO_QK_NORM, gated=True)
    return replace(plain, variants=(gated,))


T5_ENCODER = _of_t5("encoder", 1)
T5_DECODER = _of_t5("decoder", 2, no_pass=_NO_ENCODER, notes=(_BARE_CROSS,))

# --- towers for text and for images ---------------------------------------------------------------------------

TOWER = Architecture(
    name="CLIP, text",
    model_types=("clip", "clip_text_model"),
    stack="text",
    tensors=at("encoder.layers.{}.self_attn.", QKV | {"o_proj": "out_proj.weight"})
    | at("encoder.layers.{}.", {"up_proj": "mlp.fc1.weight", "down_proj": "mlp.fc2.weight"})
    | at("encoder.layers.{}.", {"input_ln": "layer_norm1.weight", "post_attn_ln": "layer_norm2.weight"}),
    absent=UNGATED | NO_QK_NORM,
    outside={
        "embedding": ("embeddings.token_embedding.weight",),
        "positions": ("embeddings.position_embedding.weight",),
        "final_ln": ("final_layer_norm.weight",),
    },
    biases=ALL_BIASES,
    by_name=False,
    rotary=None,
    layers="encoder.layers",
    final_norm="final_layer_norm",
    **LINEAR_NORM,
)
SIGLIP = replace(TOWER, name="SigLIP, text", model_types=("siglip", "siglip_text_model"), encoder=True)
_SEEING = {"stack": "vision", "encoder": True, "no_pass": _IMAGES}
_SEEN = {
    "positions": ("embeddings.position_embedding.weight",),
    "patches": ("embeddings.patch_embedding.weight",),
    "final_ln": ("post_layernorm.weight",),
}
CLIP_VISION = replace(
    TOWER,
    name="CLIP, images",
    model_types=("clip_vision_model",),
    outside=_SEEN | {"embedding_ln": ("pre_layrnorm.weight",)},
    final_norm=None,  # it reads the first place alone
    **_SEEING,
)
SIGLIP_VISION = replace(
    CLIP_VISION,
    name="SigLIP, images",
    model_types=("siglip_vision_model",),
    outside=_SEEN,
    final_norm="post_layernorm",
)
VIT = replace(
    CLIP_VISION,
    name="ViT",
    model_types=("vit", "deit"),
    tensors=at(
        "encoder.layer.{}.attention.",
        {
            "q_proj": "attention.query.weight",
            "k_proj": "attention.key.weight",
            "v_proj": "attention.value.weight",
            "o_proj": "output.dense.weight",
        },
    )
    | at(
        "encoder.layer.{}.",
        {
            "up_proj": "intermediate.dense.weight",
            "down_proj": "output.dense.weight",
            "input_ln": "layernorm_before.weight",
            "post_attn_ln": "layernorm_after.weight",
        },
    ),
    outside={
        "positions": ("embeddings.position_embeddings",),
        "patches": ("embeddings.patch_embeddings.projection.weight",),
        "final_ln": ("layernorm.weight",),
    },
    biases=tuple(b for b in ALL_BIASES if b not in ("q_proj", "k_proj", "v_proj")),  # these by the config
    layers="layers",
    final_norm="layernorm",
    attention="attention",
)

RECORDS = (
    BART, MBART, PEGASUS, BIGBIRD_PEGASUS, BART_ENCODER, MBART_ENCODER, PEGASUS_ENCODER, WHISPER_ENCODER,
    T5_ENCODER, T5_DECODER, TOWER, SIGLIP, CLIP_VISION, SIGLIP_VISION, VIT,
)  # fmt: skip
