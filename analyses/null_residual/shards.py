"""The comparisons of adjacent layers in pieces of some layers each, and the pieces joined again.

A checkpoint too large for one machine's patience is compared piece by piece, wherever; joined in the order of
layers, the pieces are to the last bit what one walk over all layers gives, because what is drawn at random depends on
the pair of layers alone, or on none. The list of pieces follows from the headers alone, and every run goes over the
same list.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from analyses.null_residual.experts import follow_experts
from analyses.null_residual.family import FamilyTrack, follow
from analyses.null_residual.matching import MatchedPair, matched_cosines
from analyses.null_residual.pairs import FamilyPair
from analyses.records import plain
from analyses.weights.architectures import FAMILIES
from analyses.weights.checkpoint import Checkpoint

SHARD_BYTES = 32 << 30  # stored of a piece, unless two layers have more: minutes of reading, an hour or two of spectra


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Adjacent layers compared; lists run over the piece's layers or pairs of layers."""

    tracks: Mapping[str, FamilyTrack]  # family without experts → its track
    experts: Mapping[str, Sequence[FamilyTrack]]  # family with experts → (expert,) tracks
    matched: Sequence[MatchedPair]  # (pair,)


Part = Callable[[range], Piece | None]
"""Layers, the last of which begins the next piece → their comparison, where it was made elsewhere."""


def layer_shards(checkpoint: Checkpoint) -> list[range]:
    """The pieces in order: ranges of layers that share one layer with the next."""
    last = checkpoint.shape.layers - 1
    total = sum(header.bytes for header in checkpoint.headers.values() if header.shares is None)
    pairs = max(1, SHARD_BYTES * checkpoint.shape.layers // max(1, total))
    return [range(start, min(start + pairs, last) + 1) for start in range(0, last, pairs)]


def compare(
    checkpoint: Checkpoint,
    layers: range,
    *,
    seed: int,
    device: str,
    spectra: str,
    each: Callable[[Iterable], Iterable] = iter,
) -> Piece:
    """Compare these layers of a checkpoint, each with the next; families one after the other.

    `each` passes a family's layers, and the pairs of layers that are matched, through, to count them.
    """
    view = checkpoint.restricted(layers=layers)

    def over(family: str, expert: int | None = None) -> Iterator[torch.Tensor]:
        named = {} if expert is None else {"expert": expert}
        return (view.stored(family, layer, device=device, **named) for layer in each(range(len(layers))))

    tracks, experts = {}, {}
    for family in view.families:
        seeds = (seed, FAMILIES.index(family))
        if count := view.experts(family):
            of_expert = lambda expert, family=family: over(family, expert)  # noqa: E731
            experts[family] = follow_experts(of_expert, count, seed=seeds, spectra=spectra, first=view.first_layer)
        else:
            tracks[family] = follow(over(family), seed=seeds, spectra=spectra, first=view.first_layer)
    return Piece(tracks=tracks, experts=experts, matched=matched_cosines(view, seed=seed, device=device, each=each))


def join(pieces: Sequence[Piece]) -> Piece:
    """The comparison of all layers from that of its pieces, in order."""
    first = pieces[0]
    return Piece(
        tracks={family: _join([piece.tracks[family] for piece in pieces]) for family in first.tracks},
        experts={
            family: [_join(list(tracks)) for tracks in zip(*(piece.experts[family] for piece in pieces), strict=True)]
            for family in first.experts
        },
        matched=[pair for piece in pieces for pair in piece.matched],
    )


def _join(tracks: Sequence[FamilyTrack]) -> FamilyTrack:
    norms, pairs, absent = list(tracks[0].norms[:1]), [], {}
    for track in tracks:
        for path, why in track.absent.items():
            pair, _, field = path.partition(".")
            absent[f"{int(pair) + len(pairs)}.{field}"] = why
        norms += track.norms[1:]  # a piece's first layer is the last of the piece before
        pairs += track.pairs
    return FamilyTrack(norms=norms, pairs=pairs, absent=absent)


# --- a piece on disk: JSON keeps every bit of a float ---------------------------------------------------------------


def to_plain(piece: Piece) -> dict[str, Any]:
    return plain(piece)


def from_plain(tree: Mapping[str, Any]) -> Piece:
    def track(stored: Mapping[str, Any]) -> FamilyTrack:
        return FamilyTrack(**stored | {"pairs": [FamilyPair(**pair) for pair in stored["pairs"]]})

    return Piece(
        tracks={family: track(stored) for family, stored in tree["tracks"].items()},
        experts={family: [track(stored) for stored in each] for family, each in tree["experts"].items()},
        matched=[MatchedPair(**pair) for pair in tree["matched"]],
    )
