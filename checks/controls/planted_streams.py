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


class Noise:
    """Unit normal states of one seed, in their order, drawn once for all streams that go on together."""

    def __init__(self, shape: tuple[int, int], *, seed: int):
        self.shape, self.seed = shape, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.last: dict[int, torch.Tensor] = {}  # the last two: a layer that draws nothing leaves its stream one behind
        self.drawn = 0

    def of(self, number: int) -> torch.Tensor:
        while self.drawn <= number:
            self.last.pop(self.drawn - 2, None)
            self.last[self.drawn] = torch.randn(self.shape, generator=self.generator, dtype=torch.float64)
            self.drawn += 1
        return self.last[number]


class Draws:
    """What one stream draws: states from the common noise, matrices by itself."""

    def __init__(self, noise: Noise):
        self.noise, self.count = noise, 0
        self.own: torch.Generator | None = None

    def states(self) -> torch.Tensor:
        self.count += 1
        return self.noise.of(self.count - 1)

    def matrix(self, side: int) -> torch.Tensor:
        if self.own is None:
            self.own = torch.Generator().manual_seed(self.noise.seed)
            torch.randn(self.noise.shape, generator=self.own, dtype=torch.float64)  # the first states
        return torch.randn(side, side, generator=self.own, dtype=torch.float64)


Next = Callable[[torch.Tensor, int, int, Draws], torch.Tensor]  # (h_ℓ, ℓ, L, draws) → δ_ℓ


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedStream:
    """One law of how states come one after the other, from unrelated ones of length √hidden."""

    law: str  # for the page
    write: Next
    massive: tuple[float, float] | None = None  # share of the depth between which each prompt's first token is LONG


def _equal(h: torch.Tensor, layer: int, depth: int, draw: Draws) -> torch.Tensor:
    return draw.states()


def _falling(h: torch.Tensor, layer: int, depth: int, draw: Draws) -> torch.Tensor:
    size = FALL ** (-layer / max(depth - 1, 1)) / 2
    return size * draw.states() * h.norm(dim=1, keepdim=True) / h.shape[1] ** 0.5


def _growing(h: torch.Tensor, layer: int, depth: int, draw: Draws) -> torch.Tensor:
    return GROWTH * h + 0.01 * draw.states()


def _linear(h: torch.Tensor, layer: int, depth: int, draw: Draws) -> torch.Tensor:
    return h @ draw.matrix(h.shape[1]) / (2 * h.shape[1] ** 0.5)


def _quiet_later(h: torch.Tensor, layer: int, depth: int, draw: Draws) -> torch.Tensor:
    size = 1.0 if layer < depth // 2 else 0.02
    return size * draw.states() * h.norm(dim=1, keepdim=True) / h.shape[1] ** 0.5


def _common(h: torch.Tensor, layer: int, depth: int, draw: Draws) -> torch.Tensor:
    towards = torch.arange(h.shape[1], dtype=h.dtype) % 2 * 2 - 1  # one direction, without a mean over features
    return (2.0 * towards).expand_as(h) if layer == 0 else 0.2 * towards + 0.01 * draw.states()


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


def planted_streams(
    asked: Mapping[str, frozenset[str] | None],
    checkpoint: Checkpoint,
    found: Mapping[str, Mapping[str, Any]],
    *,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Claim → the record of residual_stream on its planted stream of this model's own sizes, under its name.

    asked : claim → names of the metrics that are read, for which alone states are reduced; None for all. The streams
        go on layer by layer together, so that one layer's states of each are held.
    """
    own = found["residual_stream"]
    tokens, prompts = own["tokens"], own["prompts"]
    lengths = torch.full((prompts,), tokens // prompts)
    lengths[: tokens % prompts] += 1
    noise = Noise((tokens, own["hidden"]), seed=seed)
    streams = {claim: Stream(STREAMS[claim], noise, lengths, own["num_layers"], a) for claim, a in asked.items()}
    for layer in range(own["num_layers"]):
        for stream in streams.values():
            stream.layer(layer)
    facts = ForwardFacts(**{**own["calibration"], "devices": (), "remarks": ()})
    options = dict(seed=seed, no_sinks="a planted stream has no attention")
    return {
        claim: {"residual_stream": records.plain(residual_stream.measure(checkpoint, stream.fed, facts, **options))}
        for claim, stream in streams.items()
    }


class Stream:
    """A planted stream up to one of its layers, and the probe that has seen it."""

    def __init__(
        self, plant: PlantedStream, noise: Noise, lengths: torch.Tensor, depth: int, asked: frozenset[str] | None
    ):
        self.plant, self.depth, self.draws = plant, depth, Draws(noise)
        self.fed = residual_stream.StreamProbe(layer_norm=False, depth=depth)
        self.fed.asked = asked
        self.fed.begin(torch.arange(int(lengths.max())) < lengths[:, None])
        self.h = self.draws.states()
        self.seen = self._lengthened(self.h, 0)

    def layer(self, layer: int) -> None:
        self.h = self.h + self.plant.write(self.h, layer, self.depth, self.draws)
        seen, self.seen = self.seen, self._lengthened(self.h, layer + 1)
        if layer == self.depth - 1:
            self.fed.final(self.seen, self.seen)
        states = LayerStates(
            hidden=seen,
            attention=self.seen - seen,
            feed_forward=torch.zeros(1, dtype=seen.dtype).expand_as(seen),
            output=self.seen,
            next_input=self.seen,
        )
        self.fed.layer(layer, states)

    def _lengthened(self, h: torch.Tensor, state: int) -> torch.Tensor:
        start, stop = self.plant.massive or (2.0, 2.0)  # none
        return torch.where(self.fed.first[:, None], LONG * h, h) if start <= state / self.depth <= stop else h


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
