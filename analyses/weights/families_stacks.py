"""Encoder-decoders: each of the two stacks is an architecture of its own."""

from dataclasses import replace
from typing import Any

from analyses.weights.families_gpt import OPT, OPT_POST_NORM
from analyses.weights.schema import Architecture

_CROSS = "cross-attention, a third branch, is neither run nor measured: the decoder is read as a language model alone"


def _decoder(record: Architecture, name: str, model_types: tuple[str, ...], **changes: Any) -> Architecture:
    """The decoder of an encoder-decoder, from a relative of OPT."""
    tensors = {role: replace(place, name=f"decoder.{place.name}") for role, place in record.tensors.items()}
    further = {role: replace(place, name=f"decoder.{place.name}") for role, place in record.further.items()}
    outside = {part: tuple(f"decoder.{n}" for n in names) for part, names in record.outside.items()}
    settings = {
        "layers": "layers",
        "final_norm": record.final_norm and "layer_norm",
        "causal_class": "decoder",
        "size_keys": {
            "layers": "decoder_layers",
            "heads": "decoder_attention_heads",
            "feed_forward": "decoder_ffn_dim",
        },
        "biases": (),
        "by_name": False,
        "when": {},
        "notes": (*record.notes, _CROSS),
    }
    return replace(
        record,
        name=name,
        model_types=model_types,
        tensors=tensors,
        further=further,
        outside=outside,
        **settings | changes,
    )


BART = _decoder(
    OPT_POST_NORM,
    "BART",
    ("bart", "blenderbot-small", "marian", "mvp", "plbart", "trocr"),
)
MBART = _decoder(OPT, "mBART", ("mbart", "blenderbot", "pegasus", "whisper"))

BIGBIRD_PEGASUS = replace(
    MBART,
    name="BigBird-Pegasus",
    model_types=("bigbird_pegasus",),
    outside=MBART.outside | {"final_ln": ("decoder.layernorm_embedding.weight",)},
    final_norm="layernorm_embedding",
)

RECORDS = (BART, MBART, BIGBIRD_PEGASUS)
