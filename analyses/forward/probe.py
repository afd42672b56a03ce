"""Probes of a forward pass: what they receive, and the facts of the pass itself.

The contract between the pass (`forward`, which needs the transformers library) and the analyses,
which read what their probes kept and must not cost that library's start-up where no model is run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from analyses.errors import InputError
from analyses.forward.foreign import foreign
from analyses.progress import Tick


class NoTokenizer(InputError):
    """The checkpoint holds no tokenizer: what needs a forward pass is skipped with this reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardFacts:
    """What was run, and on what."""

    calibration: str  # name of the text
    sha256: str  # of the text's file
    sequences: int
    tokens: int  # over all sequences, without padding
    tokens_left_out: int  # beyond the longest sequence allowed
    truncated: bool  # whether any were
    bos: bool  # whether every sequence begins with the tokenizer's beginning-of-sequence mark
    dtype: str  # of weights and activations
    attention: str  # "eager" or "sdpa", as it ran
    devices: tuple[str, ...]  # where the weights lay
    # What tells whether the text is in the model's language, as far as it could be measured: `unknown_share` of tokens,
    # `loss` in nats a token, and `chance`, ln of the vocabulary's size, the loss of a model that knows nothing.
    language: Mapping[str, float] = field(default_factory=dict, metadata={"written": "if not empty"})
    remarks: tuple[str, ...] = ()  # what ran otherwise than asked for

    def notes(self) -> list[str]:
        """Sentences a reader must know."""
        cut = f"The text was cut: {self.tokens_left_out} tokens beyond the longest sequence were not read."
        strange = foreign(self.language)
        return [
            *self.remarks,
            *([cut] if self.truncated else []),
            *([f"{strange[0].upper()}{strange[1:]}, so that no claim about it is decided."] if strange else []),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionInputs:
    """What one layer's attention function receives, as the model computes it."""

    query: torch.Tensor  # (sequence, head, token, head_dim), positions already rotated in
    key: torch.Tensor  # (sequence, kv_head, token, head_dim)
    mask: torch.Tensor  # (sequence, 1 or head, token, token): bool, True where seen, or numbers added to the logits
    scaling: float  # logits = scaling · q·k, before capping, bias and mask
    softcap: float | None = None  # logits pass through softcap·tanh(·/softcap) where given
    bias: torch.Tensor | None = None  # (sequence, head, 1, token), of positions, added to the logits
    weights: torch.Tensor | None = None  # (sequence, head, token, token), the model's own probabilities (eager only)
    sinks: torch.Tensor | None = None  # (head,) logits of learned sinks, which take up probability and write nothing
    value: torch.Tensor | None = None  # (sequence, kv_head, token, value_dim)
    output: torch.Tensor | None = None  # (sequence, token, head, value_dim), what the attention function returns


class Seen(NamedTuple):
    """Worst differences between a record's account of a layer's attention and its class; None where none is compared.

    See `witness`.
    """

    probabilities: float | None  # absolute
    output: float | None  # of the largest entry
    reads: float | None  # of the largest entry
    heads: float | None  # of unit vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStates:
    """One layer's residual stream and branches on the real tokens, (token, hidden), at least float32."""

    hidden: torch.Tensor  # the layer's input
    attention: torch.Tensor  # what its attention branch adds
    feed_forward: torch.Tensor  # what its feed-forward branch adds
    output: torch.Tensor  # what the layer returns
    next_input: torch.Tensor  # the next layer's input, or the final norm's
    # What the *next* layer's branches would add on what this layer's branches read; None unless a probe asks
    # (`Probe.next_branches`), and behind the last layer.
    next_attention: torch.Tensor | None = None
    next_feed_forward: torch.Tensor | None = None
    next_refused: str = ""  # why they could not be had


class Probe:
    """Receives a pass. What a probe raises is kept in `failure`; the other probes go on."""

    failure: Exception | None = None
    witnesses: bool = False  # whether it wants to be shown how well the record describes the class
    asked: frozenset[str] | None = None  # metrics of its analysis that are asked for; None for all
    next_branches: bool = False  # whether it reads those of LayerStates: each layer is then evaluated once more

    def asks(self, *metrics: str) -> bool:
        """Whether any of these metrics is asked for."""
        return self.asked is None or not self.asked.isdisjoint(metrics)

    @property
    def wants_witness(self) -> bool:
        """Whether it is to be shown: claims read none of it, so that it is no part of what some metrics need."""
        return self.witnesses and self.asked is None

    def begin(self, real: torch.Tensor) -> None:
        """`real`: (sequence, token) bool, False on padding; sequences are padded on the right."""

    def attention(self, layer: int, inputs: AttentionInputs) -> None:
        """Before the layer's own states; nothing of `inputs` may be kept."""

    def witnessed(self, layer: int, seen: Seen) -> None:
        """Behind `attention`, for a probe that `witnesses`."""

    def layer(self, layer: int, states: LayerStates) -> None:
        """Once per layer, as soon as the next layer begins; nothing of `states` may be kept."""

    def final(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """The final norm's input and output, (token, hidden); called before the last `layer`."""


class Window(Probe):
    """Shows another probe some of the layers, counted from 0 there; the pass itself runs them all."""

    def __init__(self, probe: Probe, layers: Sequence[int], *, depth: int):
        self.probe = probe
        self.layers = layers
        self.next_branches, self.witnesses, self.asked = probe.next_branches, probe.witnesses, probe.asked
        self.sees_final = depth - 1 in layers

    @property
    def failure(self) -> Exception | None:
        return self.probe.failure

    @failure.setter
    def failure(self, error: Exception) -> None:
        self.probe.failure = error

    def begin(self, real: torch.Tensor) -> None:
        self.probe.begin(real)

    def attention(self, layer: int, inputs: AttentionInputs) -> None:
        if layer in self.layers:
            self.probe.attention(self.layers.index(layer), inputs)

    def witnessed(self, layer: int, seen: Seen) -> None:
        if layer in self.layers:
            self.probe.witnessed(self.layers.index(layer), seen)

    def layer(self, layer: int, states: LayerStates) -> None:
        if layer in self.layers:
            self.probe.layer(self.layers.index(layer), states)

    def final(self, before: torch.Tensor, after: torch.Tensor) -> None:
        if self.sees_final:
            self.probe.final(before, after)


class Ticking(Probe):
    """Tells how many layers are done."""

    def __init__(self, tick: Tick, *, depth: int):
        self.tick = tick
        self.depth = depth

    def layer(self, layer: int, states: LayerStates) -> None:
        self.tick(layer + 1, self.depth)
