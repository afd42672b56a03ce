"""The residual stream's states reduced during the forward pass.

Of each layer's states remain their norms, entropies and mean cosines (`states`), of its write the tokens' step sizes
and how linear it is (`linearity`). To compare states `block` layers apart, the states of up to SAMPLE tokens are
kept for so many layers, and of no other token anything with a hidden axis. In float64, one layer's states and write are
held while it is reduced.

Under a LayerNorm states are first centred over features: that norm never sees their mean, and adding a constant to
every write is an exact symmetry there.
"""

from collections import deque

import torch

from analyses.errors import InputError
from analyses.forward.probe import LayerStates, Probe
from analyses.numerics.prompt_groups import FOLDS, groups
from analyses.residual_stream.linearity import Linearity, linearity
from analyses.residual_stream.states import State, pieces, reduce_state
from analyses.residual_stream.ways import WAYS, massive, named, way_of

SAMPLE = 256  # tokens, evenly over the text, whose states are compared across layers
DEPTH_SHARE = 10  # a tenth of the depth is compared across
PERMUTED = (0.25, 0.5, 0.75)  # of the depth: layers whose rows are also permuted
ENTROPIES, LINEAR, COSINES = ("valley_ratio",), ("linear_r2",), ("mean_cosine", "cosine_trend")
"""Metrics, in whatever way, that need the entropies of prompts, regressions, and mean cosines."""


class StreamProbe(Probe):
    """Reduces states to `State`s, `Linearity`s and step sizes."""

    def __init__(self, *, layer_norm: bool, depth: int):
        self.layer_norm = layer_norm
        self.block = max(1, round(depth / DEPTH_SHARE))
        self.permuted = {int(share * depth) for share in PERMUTED}
        self.states: dict[int, State] = {}  # by state: 0 enters the first layer, the last one the final norm
        self.steps: dict[int, torch.Tensor] = {}  # layer → (token,) ‖δ_t‖
        self.linearity: dict[int, dict[str, Linearity]] = {}
        self.angles: dict[int, torch.Tensor] = {}  # state → (sample,) angle with the state `block` later, over π
        self._kept: deque[tuple[int, torch.Tensor]] = deque()
        self._last: torch.Tensor | None = None

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in which a metric is asked for; all tokens are always counted."""
        asked = WAYS if self.asked is None else ("all", *map(way_of, self.asked))
        return tuple(way for way in WAYS if way in asked)

    def ways_of(self, *metrics: str) -> tuple[str, ...]:
        """The ways in which any of these is asked for."""
        return tuple(way for way in WAYS if self.asks(*(named(name, way) for name in metrics)))

    def begin(self, real: torch.Tensor) -> None:
        lengths = [length for length in real.sum(1).tolist() if length]
        if sum(lengths) < 2:
            raise InputError("the text is a single token; residual_stream compares tokens")
        position = torch.arange(real.shape[1]).expand_as(real)[real]
        self.first = position == 0  # (token,)
        self.groups, self.folds = groups(lengths), groups(lengths, FOLDS)
        self.runs = pieces(lengths)
        number = min(SAMPLE, len(position))
        self.sample = torch.div(torch.arange(number) * len(position), number, rounding_mode="floor")
        ends = torch.tensor(lengths).cumsum(0) - 1
        ends = ends[torch.div(torch.arange(min(SAMPLE, len(ends))) * len(ends), min(SAMPLE, len(ends)),
                              rounding_mode="floor")]  # fmt: skip
        self.ends = ends  # the last token of each prompt, which the published distances are of
        self._kept.clear()

    def final(self, before: torch.Tensor, after: torch.Tensor) -> None:
        self._last = before

    def layer(self, layer: int, states: LayerStates) -> None:
        if not torch.stack(states.next_input.aminmax()).isfinite().all():  # both are NaN if any is
            raise InputError(f"layer {layer}: hidden states are not finite; use a wider --dtype")
        h = self._float64(states.hidden)
        first = self.first.to(h.device)
        self._state(layer, states.hidden, h)
        after = self._float64(states.next_input)
        massive_after = massive(torch.linalg.vector_norm(after, dim=1))
        delta = after.sub_(h)
        self.steps[layer] = torch.linalg.vector_norm(delta, dim=1).cpu()
        self.linearity[layer] = {}
        if ways := self.ways_of(*LINEAR):
            large = self.states[layer].massive.to(h.device) | massive_after
            more = self.asked is None  # what no metric reads
            self.linearity[layer] = linearity(
                h, delta, first=first, large=large, folds=self.folds.slices, ways=ways,
                permuted=more and layer in self.permuted, published=more,
            )  # fmt: skip
        if self._last is not None:  # the final norm has run, so this layer is the last
            last, self._last = self._last.to(h.device), None
            del h, delta, after
            self._state(layer + 1, last, self._float64(last))
            self._kept.clear()

    def _state(self, number: int, stored: torch.Tensor, h: torch.Tensor) -> None:
        self.states[number] = reduce_state(
            h,
            first=self.first.to(h.device),
            runs=self.runs,
            groups=self.groups.slices,
            dimensions=h.shape[1] - self.layer_norm,
            largest=float(torch.stack([x.abs() for x in stored.aminmax()]).max()),
            entropies=self.ways_of(*ENTROPIES),
            cosines=self.ways_of(*COSINES),
            centred=self.asked is None,
        )
        places = torch.cat([self.sample, self.ends]).to(h.device)
        here = h[places]
        if self._kept and self._kept[0][0] == number - self.block:
            before, rows = self._kept.popleft()
            self.angles[before] = angles(rows.double(), here).cpu()
        self._kept.append((number, here.to(stored.dtype) if not self.layer_norm else here))

    def _float64(self, states: torch.Tensor) -> torch.Tensor:
        there = states.cpu() if states.device.type == "mps" else states  # mps has no float64
        wide = there.to(torch.float64, copy=True)
        return wide.sub_(wide.mean(1, keepdim=True)) if self.layer_norm else wide


def angles(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(token,) angle between rows over π, in [0, 1]; NaN where one is zero.

    From the chord, 2·asin(‖û − v̂‖/2): the arc cosine of a cosine loses half the digits near 1, and of one that is
    rounded beyond 1 it is not defined. Beyond a right angle the sum of the two stands for the difference.

    >>> a, b = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    >>> angles(a.double(), b.double())
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    norms = [torch.linalg.vector_norm(rows, dim=1) for rows in (a, b)]
    u, v = (rows / norm[:, None] for rows, norm in zip((a, b), norms, strict=True))
    near, far = (torch.linalg.vector_norm(x, dim=1).div(2).clamp(max=1).asin() * 2 / torch.pi for x in (u - v, u + v))
    return torch.where(near <= far, near, 1 - far)
