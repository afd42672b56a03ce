"""Tracks over depth from the reduced states, of all prompts and with each group of them left out.

Axes: group (0: all prompts, then each group left out), state or layer.
"""

from dataclasses import dataclass

import numpy as np
import torch

from analyses.residual_stream.stream_probe import StreamProbe
from analyses.residual_stream.ways import masks, massive, median


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """One way's tracks; NaN where a number is undefined."""

    layers: int
    states: int  # layers + 1, or layers where the last layer was left out
    tokens: int
    counts: list[int]  # [state] tokens that count
    ratio: np.ndarray  # (1 + group, state) max‖h‖/median‖h‖
    norm: np.ndarray  # (1 + group, state) median ‖h‖
    entropy: np.ndarray  # (1 + group, state)
    cosine: np.ndarray  # (1 + group, state)
    cosine_centred: np.ndarray  # (state,)
    step: np.ndarray  # (1 + group, layer) median ‖δ‖/‖h‖
    write: np.ndarray  # (layer,) median ‖δ‖
    linear: np.ndarray  # (1 + fold, layer)
    distance: np.ndarray  # (1 + group, start)
    distance_of_ends: np.ndarray  # (start,) of the last tokens of prompts, whatever the way
    massive_first: np.ndarray  # (state,) share of massive tokens that are the first of a prompt


def tracks(probe: StreamProbe, way: str, depth: int) -> Tracks:
    """The tracks of one way, from a probe that a pass has fed."""
    count = depth + (depth in probe.states)
    large = [massive(probe.states[s].norms) for s in range(count)]
    kept = [masks(probe.first, big)[way] for big in large]
    without = _left_out(probe)  # (1 + group, token) bool, True where the token counts
    norm, ratio = (np.empty((len(without), count)) for _ in range(2))
    for s in range(count):
        for g, some in enumerate(without):
            values = probe.states[s].norms[kept[s] & some]
            norm[g, s] = float(median(values)) if len(values) else np.nan
            ratio[g, s] = float(values.max()) / norm[g, s] if len(values) and norm[g, s] > 0 else np.nan
    return Tracks(
        layers=depth,
        states=count,
        tokens=len(probe.first),
        counts=[int(mask.sum()) for mask in kept],
        ratio=ratio,
        norm=norm,
        entropy=_entropies(probe, way, count),
        cosine=np.stack([probe.states[s].cosine[way].numpy() for s in range(count)], 1),
        cosine_centred=np.array([probe.states[s].cosine_centred[way] for s in range(count)]),
        step=_steps(probe, way, depth, without, relative=True),
        write=_steps(probe, way, depth, without[:1], relative=False)[0],
        linear=_linear(probe, way, depth),
        distance=_distances(probe, way, large, without),
        distance_of_ends=_ends(probe, count),
        massive_first=np.array([float(probe.first[big].double().mean()) for big in large]),
    )


def _left_out(probe: StreamProbe) -> torch.Tensor:
    found = torch.ones(1 + len(probe.groups.slices), len(probe.first), dtype=torch.bool)
    for row, part in enumerate(probe.groups.slices, 1):
        found[row, part] = False
    return found


def _entropies(probe: StreamProbe, way: str, count: int) -> np.ndarray:
    """Means over pieces of prompts; a piece belongs to the group that its first token lies in."""
    starts = np.array([run.start for run in probe.runs])
    belongs = [(starts >= part.start) & (starts < part.stop) for part in probe.groups.slices]
    found = np.full((1 + len(belongs), count), np.nan)
    for s in range(count):
        values = probe.states[s].entropy[way].numpy()
        for g, inside in enumerate([np.zeros(len(starts), bool), *belongs]):
            left = values[~inside & np.isfinite(values)]
            found[g, s] = left.mean() if len(left) else np.nan
    return found


def _steps(probe: StreamProbe, way: str, depth: int, without: torch.Tensor, *, relative: bool) -> np.ndarray:
    found = np.full((len(without), depth), np.nan)
    for layer in range(depth):
        norms = probe.states[layer].norms
        kept = masks(probe.first, massive(norms))[way] & (norms > 0)
        values = probe.steps[layer] / norms if relative else probe.steps[layer]
        for g, some in enumerate(without):
            if (kept & some).any():
                found[g, layer] = float(median(values[kept & some]))
    return found


def _linear(probe: StreamProbe, way: str, depth: int) -> np.ndarray:
    rows = [probe.linearity[layer][way].held_out.numpy() for layer in range(depth)]
    width = max(map(len, rows))
    return np.stack([row if len(row) == width else np.full(width, np.nan) for row in rows], 1)


def _distances(probe: StreamProbe, way: str, large: list[torch.Tensor], without: torch.Tensor) -> np.ndarray:
    """Means over the sampled tokens that count in both states."""
    starts = [s for s in range(len(large)) if s in probe.angles]
    found = np.full((len(without), len(starts)), np.nan)
    for column, start in enumerate(starts):
        both = masks(probe.first, large[start] | large[start + probe.block])[way]
        angle = probe.angles[start][: len(probe.sample)]
        for g, some in enumerate(without):
            values = angle[(both & some)[probe.sample] & angle.isfinite()]
            found[g, column] = float(values.mean()) if len(values) else np.nan
    return found


def _ends(probe: StreamProbe, count: int) -> np.ndarray:
    starts = [s for s in range(count) if s in probe.angles]
    return np.array([float(probe.angles[s][len(probe.sample) :].nanmean()) for s in starts])
