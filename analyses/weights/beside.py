"""Tensors that are stored beside a decoder and are no part of it: layers that predict further tokens, other towers."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from analyses.weights.shape import KEYS

TOWERS = re.compile(r"(^|\.)(vision_tower|vision_model|visual|audio_tower|multi_modal_projector|embed_vision)\.")
"""Parts of a model that also sees or hears: no part of its decoder, and left as they are by whoever changes it."""

PREDICTION = re.compile(r"(^|\.)(mtp(_[a-z_]+)?|nextn[a-z_]*|multi_token_[a-z_]+|medusa[a-z_]*|eagle[a-z_]*)\.")
"""Heads that predict the tokens after the next, under names of their own."""

PREDICTION_LAYERS = (
    "num_nextn_predict_layers", "num_mtp_layers", "mtp_num_layers", "mtp_num_hidden_layers", "num_mtp_modules",
)  # fmt: skip
"""Keys of a config that say how many layers of that kind stand behind the last one of the decoder."""

ONLY_PREDICTION = re.compile(r"\.(eh_proj|enorm|hnorm|shared_head)\.")  # only such a layer has them
NUMBER = re.compile(r"\.(\d+)\.")  # the first number in a name is the layer's
DIGITS = 9  # of it that are read: no model has as many layers


def predicting(config: Mapping[str, Any], names: Iterable[str]) -> frozenset[str]:
    """Names of tensors that belong to predictions of further tokens.

    They are known by a name of their own, or by standing behind the last layer, either in as many layers as the
    config says or with what only such a layer has. Where there are more layers than these, none of them is taken for
    one, since the config then says of how many layers the decoder is wrongly.
    """
    names = list(names)
    found = {name for name in names if PREDICTION.search(name)}
    depth = next((config[key] for key in KEYS["layers"] if isinstance(config.get(key), int)), None)
    if depth is None:
        return frozenset(found)
    layers = {
        name: int(match[1][:DIGITS])
        for name in names
        if name not in found and not TOWERS.search(name) and (match := NUMBER.search("." + name))
    }
    counts = (config.get(key) for key in PREDICTION_LAYERS)
    said = max((n for n in counts if isinstance(n, int)), default=0)
    shown = {layers[name] for name in layers if ONLY_PREDICTION.search(name)}
    behind = {name: layer for name, layer in layers.items() if layer >= depth}
    known = all(layer in shown or layer < depth + said for layer in behind.values())
    return frozenset(found | behind.keys() if known else found)
