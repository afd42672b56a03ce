"""All supported model families, and one look-up.

The records themselves are data, in `families_…`, one module a kind of architecture. Names are those on disk, behind the
base model's prefix. `input_ln` is the gain of the norm that attention reads, `post_attn_ln` of the one that the
feed-forward reads; norms behind a branch are further roles. To add a family: one more record there, most easily as a
relative of another, and its name in that module's `RECORDS`, from which this one lists it.
"""

from collections.abc import Mapping
from typing import Any

from analyses.errors import InputError
from analyses.weights import (
    families_encoders,
    families_experts,
    families_gpt,
    families_hybrid,
    families_latent,
    families_llama,
    families_others,
    families_stacks,
)
from analyses.weights.schema import FAMILIES, FEED_FORWARD, GAINS, MATRICES, Architecture

__all__ = ["ARCHITECTURES", "FAMILIES", "FEED_FORWARD", "GAINS", "MATRICES", "Architecture", "architecture"]

_MODULES = (
    families_llama,
    families_experts,
    families_latent,
    families_hybrid,
    families_gpt,
    families_encoders,
    families_stacks,
    families_others,
)
ARCHITECTURES = tuple(record for module in _MODULES for record in module.RECORDS)
"""Of the records of one `model_type`, the first whose `when` the config meets counts."""


def architecture(config: Mapping[str, Any], stack: str = "") -> Architecture | None:
    """The record for a config, by its `model_type` and, where a model has two stacks, the one that is read; or None.

    Raises InputError for a family that cannot be measured.
    """
    model_type = config.get("model_type")
    for record in ARCHITECTURES:
        named = model_type in record.model_types and record.stack == stack
        if named and all(config.get(k) == v for k, v in record.when.items()):
            if record.refused:
                raise InputError(f"model_type '{model_type}' cannot be measured: {record.refused}")
            return record
    return None
