"""The decoder's config: found in its file, its values typed and checked before anything reads them.

A value that is missing or null stays so, since what it then stands for is the architecture's to say
(`shape.read_shape`, the records). Of a config inside another one, what it leaves out is what the library's
class takes, as it means it: such configs say only what differs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analyses.errors import InputError
from analyses.weights.shape import KEYS, LARGEST

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Keys under which models that also see or hear keep the config of their decoder, one of them below another."""
IMAGES = "vision_config"
"""The same of their tower for images."""

DEEPEST = 3  # configs one inside the other


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _list_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(test, value))


KINDS: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    ("a positive number", lambda v: _number(v) and v > 0, (
        "rope_theta", "rope_local_base_freq", "local_rope_theta", "global_rope_theta", "rotary_emb_base",
        "attn_logit_softcapping", "clip_qkv", "residual_multiplier",
    )),
    ("a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1, (
        "partial_rotary_factor", "rotary_pct", "rope_pct",
    )),
    ("a number from 0 on", lambda v: _number(v) and v >= 0, ("initializer_range", "init_std")),
    ("a positive whole number", lambda v: _whole(v) and v > 0, (
        "rotary_dim", "global_attn_every_n_layers", "max_position_embeddings", "n_positions", "seq_length",
        "decoder_sparse_step",
    )),
    ("a whole number from 0 on", lambda v: _whole(v) and v >= 0, ("num_nextn_predict_layers", "num_mtp_layers")),
    ("a positive whole number or a pattern", lambda v: isinstance(v, str) or _whole(v) and v > 0, (
        "sliding_window_pattern",
    )),
    ("true or false", lambda v: isinstance(v, bool), ("alibi", "tie_word_embeddings")),
    ("text", lambda v: isinstance(v, str), (
        "model_type", "hidden_act", "hidden_activation", "activation_function", "activation",
    )),
    ("an object", lambda v: isinstance(v, Mapping), (
        "rope_parameters", "rope_scaling", "quantization_config", "compression_config", "auto_map",
    )),
    ("a list of 0 and 1", _list_of(lambda v: isinstance(v, int) and v in (0, 1)), ("no_rope_layers",)),
    ("a list of words", _list_of(lambda v: isinstance(v, str)), ("layer_types",)),
    ("a list of whole numbers", _list_of(_whole), ("mlp_only_layers",)),
)  # fmt: skip
"""(what is expected, its test, keys whose values must pass it wherever they are given and not null)."""

ROTARY = ("rope_parameters", "rope_scaling")  # objects that hold some of the same keys, by kind of layer or not
BY_LAYER = ("no_rope_layers", "layer_types")  # lists with an entry for each layer
SIZES = ("layers", "hidden", "heads")  # that every decoder has; the others follow from them or have defaults


def decoder_config(
    config: Mapping[str, Any], path: Path, *, images: bool = False
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the decoder's entries, notes) of a model's config.

    Parameters
    ----------
    path : of the file, for messages. images : take those of the tower for images instead.

    Raises
    ------
    InputError naming the key, what was expected and what is there, for a value of the wrong type and for a list
    that is shorter than the layers are many.
    """
    found, below = dict(config), []
    for _ in range(DEEPEST):
        _require_kinds(found, path, below)
        inner = next((key for key in ((IMAGES,) if images else NESTED) if found.get(key) is not None), None)
        if inner is None:
            break
        if not isinstance(found[inner], Mapping):
            raise _wrong(path, [*below, inner], "an object", found[inner])
        below.append(inner)
        found = dict(found[inner])
    notes = ()
    if below:
        defaults = _defaults(config, found, images=images)
        lacking = [KEYS[size][0] for size in SIZES if all(found.get(key) is None for key in KEYS[size])]
        if lacking and defaults:
            which = f"the library's class for {defaults['model_type']}"
            notes = (f"The config's {'.'.join(below)} leaves out {', '.join(lacking)}; read as {which} takes it.",)
        found = defaults | found
        _require_kinds(found, path, below)
    _require_lengths(found, path, below)
    return found, notes


def _require_kinds(config: Mapping[str, Any], path: Path, below: list[str]) -> None:
    for expected, test, keys in KINDS:
        for key in keys:
            if config.get(key) is not None and not test(config[key]):
                raise _wrong(path, [*below, key], expected, config[key])
    for key in ROTARY:
        if config.get(key):
            _require_kinds(config[key], path, [*below, key])
            for name, value in config[key].items():
                if isinstance(value, Mapping):
                    _require_kinds(value, path, [*below, key, name])


def _require_lengths(config: Mapping[str, Any], path: Path, below: list[str]) -> None:
    layers = next((config[key] for key in KEYS["layers"] if _whole(config.get(key))), None)
    if layers is None or layers > LARGEST["layers"]:  # which is told where sizes are read
        return
    for key in BY_LAYER:
        if config.get(key) and len(config[key]) < layers:
            expected = f"an entry for each of {layers} layers"
            raise InputError(f"{path}: {'.'.join([*below, key])} must have {expected}, got {len(config[key])}")


def _wrong(path: Path, keys: list[str], expected: str, value: Any) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
    return InputError(f"{path}: {'.'.join(map(str, keys))} must be {expected}, got {shown}")


SHOWN = 60  # characters of a value that a message repeats


def _defaults(config: Mapping[str, Any], inner: Mapping[str, Any], *, images: bool) -> dict[str, Any]:
    """What the library's class takes for a decoder inside another model; {} for types that it does not know."""
    from transformers import CONFIG_MAPPING  # only here: most models name all that is needed

    for outer, entries in ((config.get("model_type"), config), (inner.get("model_type"), inner)):
        if outer in CONFIG_MAPPING:
            try:
                made = CONFIG_MAPPING[outer].from_dict(dict(entries))
                text = getattr(made, IMAGES, made) if images else made.get_text_config()
            except Exception:  # whatever such a class makes of entries that do not suit it
                continue
            if text.model_type != outer or entries is inner:
                return text.to_dict()
    return {}
