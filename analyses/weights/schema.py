"""The facts of a model family that are needed to read its weights and to follow its forward pass."""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from analyses.weights.layouts import PLAIN, Layout

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GAINS = ("input_ln", "post_attn_ln", "q_norm", "k_norm")
FAMILIES = MATRICES + GAINS
BIASES = {"weight": "bias", "gamma": "beta"}  # last word of a weight's name → of its bias's
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
STACKS = {
    "encoder": "an encoder",
    "decoder": "a decoder",
    "text": "a tower for text",
    "vision": "a tower for images",
}
"""Stacks of layers of which a model may have two, and what each is called."""


def is_gain(role: str) -> bool:
    """Whether a role is the gain of a norm."""
    return role in GAINS or role.endswith("_ln")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a weight file says of one tensor before any of it is read."""

    shape: tuple[int, ...]
    dtype: str  # torch's name; a safetensors type that torch has no name for keeps its own
    bytes: int
    shares: str | None = None  # an earlier tensor of the file that is the same memory, as a tied head in a pickle
    stored: str | None = None  # its name in the file, where that is another: see `wrappers`


@dataclass(frozen=True, slots=True)
class Place:
    """Where a role is kept on disk."""

    name: str  # behind the prefix; `{}` is the layer, `{part}` the expert or head where each has its own tensor
    layout: Layout = PLAIN

    @property
    def by_part(self) -> bool:
        return "{part}" in self.name

    def at(self, layer: int, part: int = 0) -> str:
        return self.name.format(layer, part=part)

    def bias(self) -> "Place":
        """Where the bias of the same module is kept."""
        stem, _, kind = self.name.rpartition(".")
        return Place(f"{stem}.{BIASES.get(kind, kind + '_bias')}", self.layout)

    def find(self, name: str) -> tuple[int, int | None] | None:
        """(layer, part) of a name without prefix; None if it is not of this place."""
        match = _pattern(self.name).fullmatch(name)
        if match is None:
            return None
        part = match.groupdict().get("part")
        return int(match["layer"]), None if part is None else int(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Layers of another kind than the record's usual one, known by a tensor that only they have."""

    name: str  # "linear attention": what they have instead, in the words of the page
    shown_by: str  # name on disk behind the prefix; `{}` is the layer. Or "config: key=value" of a list over layers
    lacks: tuple[str, ...]  # roles that such a layer has not
    # Modules whose outputs are what its branches add: None where it has no such branch, "" where it is the usual one.
    attention: str | None = ""
    feed_forward: str | None = ""

    def shown(self, layer: int, prefix: str, names: Container[str], config: Mapping[str, Any]) -> bool:
        """Whether a layer is of this kind."""
        key, _, value = self.shown_by.removeprefix("config: ").partition("=")
        if not value:
            return prefix + self.shown_by.format(layer) in names
        listed = config.get(key)
        return str(layer) == value if listed is None else layer < len(listed) and listed[layer] == value

    def why(self, layer: int) -> str:
        """Why a layer has none of what these lack."""
        return f"layer {layer} is of another kind ({self.name})"


@cache
def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template)
    return re.compile(
        escaped.replace(re.escape("{}"), r"(?P<layer>\d+)").replace(re.escape("{part}"), r"(?P<part>\d+)")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Facts of one model family that the analyses need."""

    name: str  # as its makers write it
    model_types: tuple[str, ...]  # `model_type` of config.json
    when: Mapping[str, Any] = field(default_factory=dict)  # config entries that tell it from others of its model_type
    refused: str | None = None  # why checkpoints of this family cannot be measured
    stack: str = ""  # which of a model's stacks of layers this is, one of STACKS, where it has several
    variants: tuple["Architecture", ...] = ()  # forms that no config entry tells apart: tried where this one misfits

    # --- on disk, behind the prefix of the base model
    tensors: Mapping[str, Place] = field(default_factory=dict)  # family → where it is kept
    also: tuple[Mapping[str, Place], ...] = ()  # other spellings of some of these
    absent: Mapping[str, str] = field(default_factory=dict)  # family → why this architecture has none
    optional: Mapping[str, str] = field(default_factory=dict)  # family that some checkpoints lack → why
    further: Mapping[str, Place] = field(default_factory=dict)  # other roles of a layer; their gains end in _ln
    outside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # role beside the layers → its names
    head: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the same, never behind the base model's prefix
    # Config keys that give sizes, where they are its own; see `shape.read_shape`.
    size_keys: Mapping[str, int | str | tuple[str, ...]] = field(default_factory=dict)
    missing_sizes: Mapping[str, int] = field(default_factory=dict)
    wide: int | None = None
    width_shown: bool = False  # the feed-forward's width is that of the stored matrices, whatever the config says
    groups: str = ""  # config key that says how many layers are stored, where each is run several times in a row
    by_name: bool = True  # whether a model of unknown type may be taken for this one by its names

    # --- what the weights mean
    gain_offset: float = 0.0  # the effective gain is the stored one plus this
    layer_norm: bool = False  # LayerNorm (centres over features) instead of RMSNorm
    bare_norms: bool = False  # norms without parameters
    post_norm: bool = False  # the residual stream itself is normalised behind each branch
    parallel: bool = False  # attention and feed-forward read the same stream
    feed_forward_norm: str | None = "post_attn_ln"  # family of the gain whose output gate and up read
    qk_norm: str | None = None  # q/k norms "per head" with one gain for all, "own per head", or "whole projection"
    qk_layer_norm: bool = False  # they centre as well
    qk_norm_behind_turn: bool = False  # they stand behind the rotation by positions
    gated: bool = True  # down(act(gate x) · up x) rather than down(act(up x))
    biases: tuple[str, ...] = ()  # families that always carry one; others may, by the config
    rotary: str | None = "halves"  # planes (i, i + r/2), or "pairs": (2i, 2i + 1); None: other positions
    rotary_fraction: float = 1.0  # r/d where the config does not say
    rotary_key: str = ""  # config key that gives r itself
    turned_in: tuple[str, ...] = ()  # of the config's `layer_types`, in a model with windows; (): all are
    rotary_if_given: bool = False  # only where the config has rotary parameters
    unplaced: bool = False  # no positions at all: other layers carry the order
    positions: str = ""  # a sentence on them for the page, where they are neither rotary, nor learned, nor a bias
    encoder: bool = False  # every token sees every other
    experts: bool = False  # the feed-forward is a choice of experts
    kinds: tuple[Kind, ...] = ()  # layers that differ from the others
    latent: bool = False  # queries, keys and values are products of two factors: see `latent`
    residual_multiplier: str | None = None  # config key of a factor on what each branch adds
    unsummed: str | None = None  # why a layer does not add the sum of what its branches write
    reads_scaled: bool = False  # what attention is given is its norm's output times a factor of the config
    tied: bool = False  # the head is the embedding where the config does not say
    zero_padding: tuple[str, ...] = ("embedding",)  # roles whose row `pad_token_id` the class leaves at 0
    scaled_writes: bool = False  # the class initialises o_proj and down_proj smaller by √(2L)
    notes: tuple[str, ...] = ()  # sentences for the page

    # --- module names in memory, under the base model and under a layer, for the forward pass
    no_pass: str | None = None  # why no text can be run through these layers
    # Where this is one stack of two: its name under the class that the library calls causal, or under its base class.
    causal_class: str = ""
    base_class: str = ""
    layers: str = "layers"
    final_norm: str | None = "norm"  # None where the stream ends behind the last layer
    attention: str = "self_attn"  # computes q·k
    feed_forward: str = "mlp"
    # The module whose output is what the branch adds; "": the one above. Of several, the sum, each times a factor that
    # the config gives: "one*key+other".
    attention_branch: str = ""
    feed_forward_branch: str = ""

    @property
    def branches(self) -> tuple[str, str]:
        """Modules whose outputs are what attention and feed-forward add to the stream."""
        return self.attention_branch or self.attention, self.feed_forward_branch or self.feed_forward
