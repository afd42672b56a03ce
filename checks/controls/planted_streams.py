"""Streams with a planted effect, of the model's own depth, width and text: what a claim about states must find.

No model makes them: states are drawn, layer by layer, and reduced by the very probe and judged by the very gates that
the model's own are. So a claim that does not hold on the model is shown to be one that so many tokens in so many
dimensions could have shown. Sinks are planted in the queries and keys that the attention's probe is shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from analyses import records, residual_stream
from analyses.attention_stats import sinks
from analyses.attention_stats.attention_probe import head_means
from analyses.attention_stats.means import EARLY
from analyses.forward.probe import AttentionInputs, ForwardFacts, LayerStates
from analyses.weights.checkpoint import Checkpoint

LONG = 100.0  # times the others' length, of a planted massive token
GROWTH = 0.05  # a layer, of a planted exponential
FALL = 20.0  # from the first to the last relative write

Next = Callable[[torch.Tensor, int, int, torch.Generator], torch.Tensor]  # (h_ℓ, ℓ, L, draws) → δ_ℓ


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedStream:
    """One law of how states come one after the other, from unrelated ones of length √hidden."""

    law: str  # for the page
    write: Next
    massive: tuple[float, float] | None = None  # share of the depth between which each prompt's first token is LONG


def _unrelated(h: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    return torch.randn(h.shape, generator=draw, dtype=h.dtype)


def _equal(h: torch.Tensor, layer: int, depth: int, draw: torch.Generator) -> torch.Tensor:
    return _unrelated(h, draw)


def _falling(h: torch.Tensor, layer: int, depth: int, draw: torch.Generator) -> torch.Tensor:
    size = FALL ** (-layer / max(depth - 1, 1)) / 2
    return size * _unrelated(h, draw) * h.norm(dim=1, keepdim=True) / h.shape[1] ** 0.5


def _growing(h: torch.Tensor, layer: int, depth: int, draw: torch.Generator) -> torch.Tensor:
    return GROWTH * h + 0.01 * _unrelated(h, draw)


def _linear(h: torch.Tensor, layer: int, depth: int, draw: torch.Generator) -> torch.Tensor:
    w = torch.randn(h.shape[1], h.shape[1], generator=draw, dtype=h.dtype)
    return h @ w / (2 * h.shape[1] ** 0.5)


def _quiet_later(h: torch.Tensor, layer: int, depth: int, draw: torch.Generator) -> torch.Tensor:
    size = 1.0 if layer < depth // 2 else 0.02
    return size * _unrelated(h, draw) * h.norm(dim=1, keepdim=True) / h.shape[1] ** 0.5


def _common(h: torch.Tensor, layer: int, depth: int, draw: torch.Generator) -> torch.Tensor:
    towards = torch.ones_like(h) * (torch.arange(h.shape[1]) % 2 * 2 - 1)  # one direction, without a mean over features
    return 2.0 * towards if layer == 0 else 0.2 * towards + 0.01 * _unrelated(h, draw)


STREAMS: Mapping[str, PlantedStream] = {
    "RS1": PlantedStream(
        law=f"a planted token {LONG:g} times as long as the others", write=_equal, massive=(0.25, 1.0)
    ),
    "RS3": PlantedStream(
        law=f"planted tokens {LONG:g} times as long in the middle of the depth", write=_equal, massive=(0.34, 0.66)
    ),
    "RS4": PlantedStream(law=f"planted writes that fall to one in {FALL:g} of the stream's size", write=_falling),
    "RS4r": PlantedStream(law="a planted stack of unrelated writes of equal length", write=_equal),
    "RS5": PlantedStream(law=f"a planted growth of {GROWTH:.0%} a layer", write=_growing),
    "RS5r": PlantedStream(law="a planted stack of unrelated writes of equal length", write=_equal),
    "RS6": PlantedStream(law="planted layers that are linear maps", write=_linear),
    "RS7": PlantedStream(law="planted layers of which the later half writes next to nothing", write=_quiet_later),
    "RS8": PlantedStream(law="a planted direction that all states share more and more", write=_common),
}
"""Claim → the stream on which it must hold."""


def planted_stream(
    claim: str,
    checkpoint: Checkpoint,
    found: Mapping[str, Mapping[str, Any]],
    *,
    seed: int,
    asked: frozenset[str] | None = None,
) -> dict[str, Any]:
    """The record of residual_stream on a planted stream of this model's own sizes, under its name.

    asked : names of the metrics that are read, for which alone states are reduced; None for all.
    """
    plant, own = STREAMS[claim], found["residual_stream"]
    depth, hidden, tokens, prompts = (own[key] for key in ("num_layers", "hidden", "tokens", "prompts"))
    lengths = torch.full((prompts,), tokens // prompts)
    lengths[: tokens % prompts] += 1
    fed = residual_stream.StreamProbe(layer_norm=False, depth=depth)
    fed.asked = asked
    fed.begin(torch.arange(int(lengths.max())) < lengths[:, None])
    draw = torch.Generator().manual_seed(seed)
    h = torch.randn(tokens, hidden, generator=draw, dtype=torch.float64)
    start, stop = plant.massive or (2.0, 2.0)  # none
    long = [LONG if start <= s / depth <= stop else 1.0 for s in range(depth + 1)]
    for layer in range(depth):
        after = h + plant.write(h, layer, depth, draw)
        seen, next_seen = (_lengthened(x, fed.first, long[s]) for x, s in ((h, layer), (after, layer + 1)))
        if layer == depth - 1:
            fed.final(next_seen, next_seen)
        write = next_seen - seen
        states = LayerStates(
            hidden=seen, attention=write, feed_forward=torch.zeros_like(write), output=next_seen, next_input=next_seen
        )
        fed.layer(layer, states)
        h = after
    facts = ForwardFacts(**{**own["calibration"], "devices": (), "remarks": ()})
    no_sinks = "a planted stream has no attention"
    record = residual_stream.measure(checkpoint, fed, facts, seed=seed, no_sinks=no_sinks)
    return {"residual_stream": records.plain(record)}


def _lengthened(h: torch.Tensor, first: torch.Tensor, factor: float) -> torch.Tensor:
    return torch.where(first[:, None], factor * h, h)


PULL = 6.0  # logit of key 0 in the planted heads, where all others have 0
SINKS = "planted sinks: half of the heads give the first key e⁶ times what they give another"


def planted_sinks(found: Mapping[str, Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """The metrics of attention_stats where half of the heads of every layer are sinks, in the model's own numbers."""
    own = found["attention_stats"]
    heads, prompts = own["num_heads"], int(own["metrics"]["sink_heads"]["n"]["prompts"])
    real = torch.ones(1, EARLY, dtype=torch.bool)
    query, key = torch.ones(1, heads, EARLY, 1), torch.zeros(1, heads, EARLY, 1)
    key[0, : (heads + 1) // 2, 0] = PULL
    mask = torch.ones(1, 1, EARLY, EARLY, dtype=torch.bool).tril()
    means = head_means(AttentionInputs(query=query, key=key, mask=mask, scaling=1.0), real)
    layer = SimpleNamespace(sink_share_early_per_head=means.sink_share_early.tolist())
    metrics = sinks.metrics([layer] * own["num_layers"], prompts=prompts, seed=seed)
    return {"attention_stats": {"dtype": own["dtype"], "metrics": records.plain(metrics), "identities": {}}}
