"""Tracks over depth from the reduced states, of all prompts and with each group of them left out.

Axes: group (0: all prompts, then each group left out), state or layer.
"""

from dataclasses import dataclass

import numpy as np
import torch

from analyses.residual_stream.linearity import NONE
from analyses.residual_stream.stream_probe import StreamProbe
from analyses.residual_stream.ways import by_mask, masks


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


def tracks(probe: StreamProbe, depth: int) -> dict[str, Tracks]:
    """Way → its tracks, of the ways that are asked for, from a probe that a pass has fed."""
    states = [probe.states[s] for s in range(depth + (depth in probe.states))]
    ways = [masks(probe.first, state.massive) for state in states]
    ways = [{way: mask for way, mask in kept.items() if way in probe.ways} for kept in ways]
    without = _left_out(probe)  # (1 + group, token) bool, True where the token counts
    norms = [middles(state.norms, kept, without) for state, kept in zip(states, ways, strict=True)]
    steps, writes = [], []
    for layer in range(depth):
        kept = {way: mask & (states[layer].norms > 0) for way, mask in ways[layer].items()}
        steps.append(middles(probe.steps[layer] / states[layer].norms, kept, without))
        writes.append(middles(probe.steps[layer], kept, without[:1]))
    return {
        way: Tracks(
            layers=depth,
            states=len(states),
            tokens=len(probe.first),
            counts=[int(kept[way].sum()) for kept in ways],
            ratio=_ratio(*(np.stack([found[way][i] for found in norms], 1) for i in (1, 0))),
            norm=np.stack([found[way][0] for found in norms], 1),
            entropy=_entropies(probe, way, len(states)),
            cosine=_cosines(probe, way, len(states), len(without)),
            cosine_centred=np.array([state.cosine_centred.get(way, np.nan) for state in states]),
            step=np.stack([found[way][0] for found in steps], 1),
            write=np.array([found[way][0][0] for found in writes]),
            linear=_linear(probe, way, depth),
            distance=_distances(probe, way, [state.massive for state in states], without),
            distance_of_ends=_ends(probe, len(states)),
            massive_first=np.array([float(probe.first[state.massive].double().mean()) for state in states]),
        )
        for way in probe.ways
    }


def _left_out(probe: StreamProbe) -> torch.Tensor:
    found = torch.ones(1 + len(probe.groups.slices), len(probe.first), dtype=torch.bool)
    for row, part in enumerate(probe.groups.slices, 1):
        found[row, part] = False
    return found


def middles(
    values: torch.Tensor, kept: dict[str, torch.Tensor], without: torch.Tensor
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Way → medians and largest of the (token,) values that its mask keeps, in each row of (1 + group, token) masks.

    The values are put in order once: then the middle ones that are kept follow from counting.
    """
    order = values.argsort().numpy()
    ordered, without = values.numpy()[order], without.numpy()[:, order]

    def of(way: str, mask: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        rank = (without & mask.numpy()[order]).cumsum(1, dtype=np.int32)  # (1 + group, token), from 1
        count = rank[:, -1:]
        low, high, last = (ordered[(rank >= k).argmax(1)] for k in ((count + 1) // 2, count // 2 + 1, count))
        some = count[:, 0] > 0
        return np.where(some, (low + high) / 2, np.nan), np.where(some, last, np.nan)

    return by_mask(kept, of)


def _ratio(largest: np.ndarray, middle: np.ndarray) -> np.ndarray:
    return np.divide(largest, middle, out=np.full_like(middle, np.nan), where=middle > 0)


def _entropies(probe: StreamProbe, way: str, count: int) -> np.ndarray:
    """Means over pieces of prompts; a piece belongs to the group that its first token lies in."""
    starts = np.array([run.start for run in probe.runs])
    kept = np.array([np.ones(len(starts)), *((starts < p.start) | (starts >= p.stop) for p in probe.groups.slices)])
    if way not in probe.states[0].entropy:
        return np.full((len(kept), count), np.nan)
    return _means(kept, np.stack([probe.states[s].entropy[way].numpy() for s in range(count)]))


def _means(kept: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(set, track) means over the units of each set, of (set, unit) and (track, unit), that have a value."""
    known = np.isfinite(values)
    count = kept @ known.T.astype(float)
    total = kept @ np.where(known, values, 0.0).T
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _cosines(probe: StreamProbe, way: str, count: int, rows: int) -> np.ndarray:
    if way not in probe.states[0].cosine:
        return np.full((rows, count), np.nan)
    return np.stack([probe.states[s].cosine[way].numpy() for s in range(count)], 1)


def _linear(probe: StreamProbe, way: str, depth: int) -> np.ndarray:
    rows = [probe.linearity[layer].get(way, NONE).held_out.numpy() for layer in range(depth)]
    width = max(map(len, rows))
    return np.stack([row if len(row) == width else np.full(width, np.nan) for row in rows], 1)


def _distances(probe: StreamProbe, way: str, large: list[torch.Tensor], without: torch.Tensor) -> np.ndarray:
    """Means over the sampled tokens that count in both states."""
    starts = [s for s in range(len(large)) if s in probe.angles]
    kept = without[:, probe.sample].numpy().astype(float)  # (1 + group, sample)
    found = []
    for start in starts:
        both = masks(probe.first, large[start] | large[start + probe.block])[way][probe.sample]
        found.append(torch.where(both, probe.angles[start][: len(probe.sample)], torch.nan).numpy())
    return _means(kept, np.array(found).reshape(-1, len(probe.sample)))


def _ends(probe: StreamProbe, count: int) -> np.ndarray:
    starts = [s for s in range(count) if s in probe.angles]
    return np.array([float(probe.angles[s][len(probe.sample) :].nanmean()) for s in starts])
