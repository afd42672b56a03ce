"""Statistics of adjacent layers that no exact map of the model moves: alignment, rank, and the first mode of scales.

They are made of the layers' Grams and of the norms of what these are made of (`grams`, `alignment`), so they speak of
the model's function and not of how its weights are written down. One does not: `read_channel_r` is read off channels
of the stream, which a rotation mixes, and stands beside `read_alignment` because norm gains are compared channel by
channel.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyses.null_residual.alignment import GramTracks
from analyses.null_residual.asked import INVARIANT_MODES, any_of
from analyses.null_residual.family import NO_SPECTRA
from analyses.null_residual.grams import GRAMS, MADE_OF, READS, SCALES, free_factors, unmeasured
from analyses.null_residual.metrics import SIDE, but_for_identical, worst
from analyses.null_residual.scales import DRAWS, NULLS, ScalePca, log_tracks, scale_pca, shares, walk_p
from analyses.numerics import intervals
from analyses.records import Metric
from analyses.weights.checkpoint import Checkpoint

IDENTICAL = "the two layers are identical up to a factor and the rounding of their storage"
NOT_ASKED = "it was not asked for"
NO_DIRECTION = "one of the two layers reads nothing, or all directions alike"
NO_CHANNELS = "a channel is not read at all, or all channels are read alike"
FEW_TRACKS = "fewer than two invariant scales vary over depth"
NOTE = (
    "what layers read and write is compared in a form that no exact map of the model's weights moves; the channel "
    "form, read_channel_r, is not proof against rotations of the stream"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariant:
    """What the record keeps of one model's Grams and invariant scales, beside the pairs themselves."""

    scales: dict[str, list[float] | None]  # name in SCALES → (layer,)
    pca: ScalePca | None  # of their standardised logarithms
    metrics: dict[str, Metric]
    absent: dict[str, str]  # dotted path in the record → why nothing stands there
    notes: list[str]

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        tracks: GramTracks,
        *,
        spectra: str,
        seed: int,
        asked: Collection[str] | None = None,
    ) -> "Invariant":
        """From the tracks of all layers.

        Parameters
        ----------
        spectra : how ranks were computed, one of pairs.SPECTRA.
        asked : names of the metrics that are wanted; None for everything.
        """
        lacking = unmeasured(checkpoint)
        logs, no_track = log_tracks({name: tracks.scales[name] for name in SCALES if name in tracks.scales})
        nulls, walks = NULLS if asked is None else (), any_of(INVARIANT_MODES[1:], asked)
        pca = scale_pca(logs, seed=seed, standardise=True, nulls=nulls) if any_of(INVARIANT_MODES, asked) else None
        return cls(
            scales={name: tracks.scales.get(name) for name in SCALES},
            pca=pca,
            metrics=pair_metrics(tracks, lacking, spectra=spectra, seed=seed)
            | mode_metrics(logs, pca, seed, walks=walks),
            absent=_absent(tracks, lacking, spectra)
            | _of_other_kinds(checkpoint, tracks)
            | ({} if pca else {"invariant_scale_pca": FEW_TRACKS}),
            notes=_notes(checkpoint, no_track),
        )


def pair_metrics(tracks: GramTracks, lacking: Mapping[str, str], *, spectra: str, seed: int) -> dict[str, Metric]:
    """Alignment, its channel form, and rank, each as the median over pairs of layers in the worst kind of Gram.

    Parameters
    ----------
    lacking : name in GRAMS → why the model has none.
    """

    def column(names: Sequence[str], field: str) -> dict[str, list[float | None]]:
        return {name: [getattr(pair, field) for pair in tracks.pairs[name]] for name in names if name in tracks.pairs}

    absent = "; ".join(sorted(set(lacking.values()))) or NOT_ASKED
    return {
        "read_alignment": worst(
            column(READS, "align"),
            np.min,
            seed=seed,
            method="least median alignment of adjacent layers' read Grams",
            absent=absent,
            within=(-1.0, 1.0),
        ),
        "read_channel_r": worst(
            column(READS[:1], "channel_r") or column(READS[1:2], "channel_r"),
            np.min,
            seed=seed,
            method="median Pearson r of log diagonals of adjacent read Grams; a rotation of the stream moves it",
            absent=absent,
            within=(-1.0, 1.0),
        ),
        "read_write_rank_ratio": _rank(tracks, column(GRAMS, "rank_ratio"), absent, spectra, seed),
    }


def _rank(
    tracks: GramTracks, rows: Mapping[str, Sequence[float | None]], absent: str, spectra: str, seed: int
) -> Metric:
    method = "least median of eff_rank/Haar null of the sum of adjacent layers' unit-trace Grams, over reads and writes"
    found = worst(rows, np.min, seed=seed, method=method, absent=absent, within=(0.0, math.inf))
    if not rows:
        return found
    found = replace(found, n={**found.n, "side": tracks.side})
    if spectra == "none":
        return replace(found, value=None, interval=None, where=None, reason=NO_SPECTRA)
    if tracks.side < SIDE:
        few = f"the stream has {tracks.side} dimensions, and a rank needs at least {SIDE} to be compared"
        return replace(found, value=None, interval=None, where=None, reason=few)
    identical = {name: sum(pair.identical for pair in tracks.pairs[name]) for name in rows}
    return but_for_identical(found, identical, pairs=len(next(iter(rows.values()))), why=IDENTICAL)


def first_mode_interval(tracks: np.ndarray, *, seed: int) -> intervals.Interval | None:
    """Of the first mode's share in standardised (scale, layer) tracks; bootstrap over layers."""

    def share(drawn: np.ndarray) -> np.ndarray:
        return shares(tracks[:, drawn].swapaxes(0, 1), True)[:, 0]

    return intervals.bootstrap(share, tracks.shape[1], seed=seed, within=(0.0, 1.0))


def mode_metrics(
    tracks: Mapping[str, np.ndarray], pca: ScalePca | None, seed: int, *, walks: bool = True
) -> dict[str, Metric]:
    """Share of the first mode of the invariant scales' standardised log tracks, and its place among random walks.

    Parameters
    ----------
    tracks : name in SCALES → (layer,) log-scales. pca : theirs, standardised.
    walks : whether its place among random walks is wanted.
    """
    layers = len(next(iter(tracks.values()))) if tracks else 0
    n = {"layers": layers, "scales": len(pca.families) if pca else len(tracks)}
    if pca is None or pca.explained is None:
        missing = Metric(value=None, n=n, reason=FEW_TRACKS)
        return {"invariant_first_mode": missing, "invariant_first_mode_walk_p": missing}
    raw = np.stack([tracks[name] for name in pca.families])  # (scale, layer)
    mode = {
        "invariant_first_mode": Metric(
            value=pca.explained[0],
            interval=first_mode_interval(raw, seed=seed),
            n=n,
            method="share of the first mode of standardised log-scales that no exact map moves; bootstrap over layers, "
            "wider for their persistence",
        )
    }
    if not walks:
        return mode
    method = "share of random walks of the tracks' own steps whose first mode explains as much or more, +1 rule"
    return mode | {
        "invariant_first_mode_walk_p": Metric(value=walk_p(raw, seed=seed), n=n | {"walks": DRAWS}, method=method)
    }


def _absent(tracks: GramTracks, lacking: Mapping[str, str], spectra: str) -> dict[str, str]:
    reasons = {f"{'grams' if name in GRAMS else 'invariant_scales'}.{name}": why for name, why in lacking.items()}
    for name, pairs in tracks.pairs.items():
        for i, pair in enumerate(pairs):
            at = f"grams.{name}.{i}"
            if pair.distance is None:
                reasons[f"{at}.*"] = "one of the two layers' Grams is zero"
                continue
            rank = NO_SPECTRA if spectra == "none" else IDENTICAL if pair.identical else "the stream has one dimension"
            for field, pattern, why in (
                ("align", "align", NO_DIRECTION),
                ("channel_r", "channel_r", NO_CHANNELS),
                ("rank_ratio", "*rank*", rank),
            ):
                if getattr(pair, field) is None:
                    reasons[f"{at}.{pattern}"] = why
    return reasons


def _of_other_kinds(checkpoint: Checkpoint, tracks: GramTracks) -> dict[str, str]:
    """Reasons for what layers of another kind have not."""
    absent = {}
    for section, names in (("grams", tracks.pairs), ("invariant_scales", tracks.scales)):
        for name in names:
            for layer in range(checkpoint.shape.layers):
                if lacking := [family for family in MADE_OF[name] if not checkpoint.has(family, layer)]:
                    absent[f"{section}.{name}.{layer}*"] = checkpoint.why_not(lacking[0], layer)
    return absent


def _notes(checkpoint: Checkpoint, no_track: Mapping[str, str]) -> list[str]:
    """What a reader must know of the Grams and the invariant scales; no_track : scale → why it has no logarithm."""
    record, found = checkpoint.architecture, [NOTE, *no_track.values()]
    if checkpoint.has_qk_norm:
        found.append("norms take the size of queries and keys off, so the scale qk is that of scale-free heads")
    if not free_factors(checkpoint):
        found.append("the feed-forward's activation lets no factor through, so neurons are not weighted by a partner")
    if record.post_norm:
        found.append("the stream itself is normalised: its channels are the model's own, and heads read it as stored")
    elif "ffn_out_ln" in record.further:
        found.append(
            "a norm with a gain stands behind each branch: what is written has that gain folded in, the scales ov and "
            "up_down are ratios to the size before it, and the stream's channels are the model's own up to their signs"
        )
    return found
