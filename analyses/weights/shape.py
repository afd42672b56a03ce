"""The sizes of a decoder, read from its config."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.errors import InputError

KEYS = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim",),
    "values": ("v_head_dim",),
    "feed_forward": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"),
}
"""Size → its keys in a config, the first one given and not null counts."""

LISTS = ("layers_block_type", "layer_types")  # of a config, with an entry for each layer

LARGEST = {"layers": 10_000, "experts": 100_000}  # far beyond any model: a config with more is damaged
LARGEST_SIDE = 10_000_000  # of any other size


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a decoder, from its config."""

    layers: int
    hidden: int  # D
    heads: int  # H, query heads
    kv_heads: int  # K
    head_dim: int  # d
    feed_forward: int  # F, of one expert where there are experts
    experts: int = 0  # per layer; 0 without a choice of experts
    values: int = 0  # of a head's values, where they are not as many as head_dim
    whole_qk_norm: bool = False  # q/k norms over the whole projection, so that their gains are as long as it

    @property
    def value_dim(self) -> int:
        """Dimensions of a head's values."""
        return self.values or self.head_dim

    def of(self, family: str) -> tuple[int, ...]:
        """The shape of one layer's role, (out, in) for matrices; of one expert's where there are experts."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        values = self.kv_heads * self.value_dim
        return {
            "q_proj": (query, self.hidden),
            "attention_gate": (query, self.hidden),
            "k_proj": (key_value, self.hidden),
            "v_proj": (values, self.hidden),
            "o_proj": (self.hidden, self.heads * self.value_dim),
            "gate_proj": (self.feed_forward, self.hidden),
            "up_proj": (self.feed_forward, self.hidden),
            "down_proj": (self.hidden, self.feed_forward),
            "input_ln": (self.hidden,),
            "post_attn_ln": (self.hidden,),
            "q_norm": (query if self.whole_qk_norm else self.head_dim,),
            "k_norm": (key_value if self.whole_qk_norm else self.head_dim,),
        }[family]


def read_shape(
    config: Mapping[str, Any],
    folder: Path,
    *,
    keys: Mapping[str, int | str | tuple[str, ...]],
    missing: Mapping[str, int],
    wide: int | None,
    experts: bool,
    whole_qk_norm: bool,
) -> Shape:
    """The sizes that a config gives.

    Parameters
    ----------
    keys : size → the key or keys that this architecture reads instead of `KEYS`, or the number that always holds.
    missing : size → what the library takes where the key is missing altogether.
    wide : feed-forward width as a multiple of the hidden size where the config gives none.
    """

    def number(size: str, default: int | None = None) -> int:
        given = keys.get(size, KEYS[size])
        if isinstance(given, int):
            return given
        names = (given,) if isinstance(given, str) else given
        value = next((config[name] for name in names if config.get(name) is not None), None)
        if value is None and not any(name in config for name in names):
            value = missing.get(size)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{folder / 'config.json'}: {names[0]} must be a positive integer, got {value!r}")
        if value > (most := LARGEST.get(size, LARGEST_SIDE)):
            raise InputError(f"{folder / 'config.json'}: {names[0]} is {value}; no model has more than {most}")
        return value

    hidden, heads = number("hidden"), number("heads")
    shape = Shape(
        layers=number("layers", next((len(config[key]) for key in LISTS if isinstance(config.get(key), list)), None)),
        hidden=hidden,
        heads=heads,
        kv_heads=number("kv_heads", heads),
        head_dim=number("head_dim", hidden // heads),
        feed_forward=number("feed_forward", wide and wide * hidden),
        experts=number("experts") if experts else 0,
        values=number("values") if "values" in keys else 0,
        whole_qk_norm=whole_qk_norm,
    )
    if shape.layers < 2:
        raise InputError(f"{folder}: the model has one layer; Fathom compares layers and needs at least two")
    if heads % shape.kv_heads:
        raise InputError(f"{folder / 'config.json'}: {heads} heads do not divide over {shape.kv_heads} key/value heads")
    return shape
