"""Where each role of a decoder layer is kept, per model family. Data, and one look-up.

Names are those on disk, as the checkpoint spells them after an optional `model.` prefix.
Adding a family whose projections are separate matrices is one more record in ARCHITECTURES.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from analyses.errors import InputError

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GAINS = ("input_ln", "post_attn_ln", "q_norm", "k_norm")
FAMILIES = MATRICES + GAINS


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Facts of one model family that the analyses need."""

    model_types: tuple[str, ...]  # `model_type` of config.json
    tensors: Mapping[str, str]  # family → name on disk, `{}` for the layer number
    absent: Mapping[str, str] = field(default_factory=dict)  # family → why this family has none
    gain_offset: float = 0.0  # the effective gain is the stored one plus this
    layer_norm: bool = False  # LayerNorm (centres over features) instead of RMSNorm
    # Module names in memory, under the base model and under a layer, for the forward pass.
    layers: str = "layers"
    final_norm: str = "norm"
    attention: str = "self_attn"
    feed_forward: str = "mlp"


_SEPARATE = {
    "q_proj": "layers.{}.self_attn.q_proj.weight",
    "k_proj": "layers.{}.self_attn.k_proj.weight",
    "v_proj": "layers.{}.self_attn.v_proj.weight",
    "o_proj": "layers.{}.self_attn.o_proj.weight",
    "gate_proj": "layers.{}.mlp.gate_proj.weight",
    "up_proj": "layers.{}.mlp.up_proj.weight",
    "down_proj": "layers.{}.mlp.down_proj.weight",
    "input_ln": "layers.{}.input_layernorm.weight",
    "post_attn_ln": "layers.{}.post_attention_layernorm.weight",
}
_NO_QK_NORM = {
    "q_norm": "this architecture does not normalise queries",
    "k_norm": "this architecture does not normalise keys",
}

ARCHITECTURES = (
    Architecture(model_types=("llama", "mistral", "qwen2"), tensors=_SEPARATE, absent=_NO_QK_NORM),
    Architecture(
        model_types=("qwen3",),
        tensors=_SEPARATE
        | {"q_norm": "layers.{}.self_attn.q_norm.weight", "k_norm": "layers.{}.self_attn.k_norm.weight"},
    ),
)


def architecture(model_type: str) -> Architecture:
    """The record for a config's `model_type`; raises InputError if there is none."""
    for record in ARCHITECTURES:
        if model_type in record.model_types:
            return record
    known = ", ".join(name for record in ARCHITECTURES for name in record.model_types)
    raise InputError(
        f"model_type '{model_type}' is not in the architecture table (known: {known}); "
        "add a record to analyses/architectures.py"
    )
