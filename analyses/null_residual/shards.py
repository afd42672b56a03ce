"""The comparisons of adjacent layers, split into shards of some layers each, and the shards joined again.

A checkpoint too large for one machine is compared shard by shard, on as many machines as there are. Joined in the order
of layers, the shards give to the last bit what one pass over all layers gives, because what is drawn at random depends
on the pair of layers alone, or on none. The list of shards follows from the headers alone, so every run has the same.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from analyses.null_residual.alignment import GramPair, GramTracks, follow_grams
from analyses.null_residual.asked import PARTS
from analyses.null_residual.experts import follow_experts
from analyses.null_residual.family import FamilyTrack, follow, spread
from analyses.null_residual.grams import GRAMS
from analyses.null_residual.matching import MatchedPair, matched_cosines
from analyses.null_residual.pairs import FamilyPair
from analyses.numerics.memory import release
from analyses.records import plain
from analyses.weights.architectures import FAMILIES
from analyses.weights.checkpoint import Checkpoint

SHARD_BYTES = 32 << 30  # stored of a shard, unless two layers have more: minutes of reading, an hour or two of spectra


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Adjacent layers compared; lists run over the shard's layers or pairs of layers."""

    tracks: Mapping[str, FamilyTrack]  # family without experts → its track
    experts: Mapping[str, Sequence[FamilyTrack]]  # family with experts → (expert,) tracks
    matched: Sequence[MatchedPair]  # (pair,)
    grams: GramTracks


NO_GRAMS = GramTracks(pairs={}, scales={}, side=0)

ShardOf = Callable[[range], Shard | None]
"""Layers, the last of which begins the next shard → their comparison, where it was made elsewhere."""


def layer_shards(checkpoint: Checkpoint) -> list[range]:
    """The shards in order: ranges of layers that share one layer with the next."""
    last = checkpoint.shape.layers - 1
    if checkpoint.others:  # pairs of one kind may span any number of layers
        return [range(last + 1)]
    total = sum(header.bytes for header in checkpoint.headers.values() if header.shares is None)
    pairs = max(1, SHARD_BYTES * checkpoint.shape.layers // max(1, total))
    return [range(start, min(start + pairs, last) + 1) for start in range(0, last, pairs)]


def measure_shard(
    checkpoint: Checkpoint,
    layers: range,
    *,
    seed: int,
    device: str,
    spectra: str,
    parts: Collection[str] = PARTS,
    kinds: Collection[str] = GRAMS,
    beside: bool = True,
    each: Callable[[Iterable], Iterable] = iter,
) -> Shard:
    """Compare these layers of a checkpoint, each with the next; families one after the other.

    `each` passes a family's or branch's layers, and the pairs of layers that are matched, through, to count them. What
    is not in `parts` is left empty.
    """
    view = checkpoint.restricted(layers=layers)

    def matrices(family: str, **expert: int) -> Iterator[torch.Tensor]:
        return (view.stored(family, layer, device=device, **expert) for layer in each(view.layers_with(family)))

    def over_all(family: str, track: FamilyTrack) -> FamilyTrack:
        having = view.layers_with(family)
        lacking = {n: view.why_not(family, n) for n in range(len(layers)) if n not in having}
        return spread(track, having, lacking) if lacking else track

    tracks, experts = {}, {}
    for family in view.families if "entries" in parts else ():
        options = dict(seed=(seed, FAMILIES.index(family)), spectra=spectra, first=view.number(0), beside=beside)
        if count := view.experts(family):
            of_expert = lambda expert, family=family: matrices(family, expert=expert)  # noqa: E731
            experts[family] = [over_all(family, track) for track in follow_experts(of_expert, count, **options)]
        else:
            tracks[family] = over_all(family, follow(matrices(family), **options))
        release()
    options = dict(seed=seed, device=device, each=each)
    matching = dict(exact=spectra == "exact", beside=beside)
    matched = matched_cosines(view, **options, **matching) if "matching" in parts else []
    release()
    found = follow_grams(view, **options, spectra=spectra, kinds=kinds) if "grams" in parts else NO_GRAMS
    return Shard(tracks=tracks, experts=experts, matched=matched, grams=found)


def join(shards: Sequence[Shard]) -> Shard:
    """The comparison of all layers from its shards, in order."""
    first = shards[0]
    return Shard(
        tracks={family: _join([shard.tracks[family] for shard in shards]) for family in first.tracks},
        experts={
            family: [_join(list(tracks)) for tracks in zip(*(shard.experts[family] for shard in shards), strict=True)]
            for family in first.experts
        },
        matched=[pair for shard in shards for pair in shard.matched],
        grams=_join_grams([shard.grams for shard in shards]),
    )


def _join(tracks: Sequence[FamilyTrack]) -> FamilyTrack:
    norms, pairs, absent = list(tracks[0].norms[:1]), [], {}
    for track in tracks:
        for path, why in track.absent.items():
            pair, _, field = path.partition(".")
            absent[f"{int(pair) + len(pairs)}.{field}"] = why
        norms += track.norms[1:]  # a shard's first layer is the last of the shard before
        pairs += track.pairs
    return FamilyTrack(norms=norms, pairs=pairs, absent=absent)


def _join_grams(parts: Sequence[GramTracks]) -> GramTracks:
    first = parts[0]
    scales = {
        name: [*track[:1], *(scale for part in parts for scale in part.scales[name][1:])]
        for name, track in first.scales.items()
    }
    pairs = {name: [pair for part in parts for pair in part.pairs[name]] for name in first.pairs}
    return GramTracks(pairs=pairs, scales=scales, side=first.side)


# --- a shard on disk: JSON keeps every bit of a float ---------------------------------------------------------------


def to_plain(shard: Shard) -> dict[str, Any]:
    return plain(shard)


def from_plain(tree: Mapping[str, Any]) -> Shard:
    def track(stored: Mapping[str, Any]) -> FamilyTrack:
        return FamilyTrack(**stored | {"pairs": [FamilyPair(**pair) for pair in stored["pairs"]]})

    return Shard(
        tracks={family: track(stored) for family, stored in tree["tracks"].items()},
        experts={family: [track(stored) for stored in each] for family, each in tree["experts"].items()},
        matched=[MatchedPair(**pair) for pair in tree["matched"]],
        grams=GramTracks(
            pairs={name: [GramPair(**pair) for pair in pairs] for name, pairs in tree["grams"]["pairs"].items()},
            scales=tree["grams"]["scales"],
            side=tree["grams"]["side"],
        ),
    )
