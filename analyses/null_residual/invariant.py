"""Statistics of adjacent layers that no exact map of the model moves: alignment, rank, and the first mode of scales.

They are made of the layers' Grams and of the norms of what these are made of (`grams`, `alignment`), so they speak of
the model's function and not of how its weights are written down. One does not: `read_channel_r` is read off channels
of the stream, which a rotation mixes, and stands beside `read_alignment` because norm gains are compared channel by
channel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from analyses.null_residual import scales
from analyses.null_residual.alignment import GramPair, GramTracks
from analyses.null_residual.family import NO_SPECTRA
from analyses.null_residual.grams import GRAMS, READS, SCALES
from analyses.null_residual.metrics import SIDE, worst
from analyses.numerics import intervals
from analyses.records import Metric

IDENTICAL = "the two layers are identical up to a factor and the rounding of their storage"
NO_DIRECTION = "one of the two layers reads nothing, or all directions alike"
NO_CHANNELS = "a channel is not read at all, or all channels are read alike"
FEW_TRACKS = "fewer than two invariant scales vary over depth"


def metrics(
    tracks: GramTracks,
    pca: scales.ScalePca | None,
    *,
    unmeasured: Mapping[str, str],
    side: int,
    spectra: str,
    seed: int,
) -> dict[str, Metric]:
    """The metrics of `read_alignment`, `read_channel_r`, `read_write_rank_ratio` and the invariant scales' first mode.

    Parameters
    ----------
    pca : of the standardised logarithms of the tracks' scales; None where fewer than two vary.
    unmeasured : name of a Gram or scale → why the model lacks it.
    side : the dimensions in which the Grams live.
    spectra : how the ranks were computed, one of pairs.SPECTRA.
    """

    def column(names: Sequence[str], field: str) -> dict[str, list[float | None]]:
        return {name: [getattr(pair, field) for pair in tracks.pairs[name]] for name in names if name in tracks.pairs}

    lacking = "; ".join(sorted(set(unmeasured.values()))) or "no layer reads or writes the stream"
    channels = column(READS[:1], "channel_r") or column(READS[1:2], "channel_r")
    return {
        "read_alignment": worst(
            column(READS, "align"),
            np.min,
            seed=seed,
            method="least median alignment over read Grams of adjacent layers",
            absent=lacking,
        ),
        "read_channel_r": worst(
            channels,
            np.min,
            seed=seed,
            method="median Pearson r of log diagonals of adjacent layers' read Grams, channel by channel; "
            "a rotation of the stream moves it",
            absent=lacking,
        ),
        "read_write_rank_ratio": _rank(column(GRAMS, "rank_ratio"), tracks.pairs, lacking, side, spectra, seed),
        **mode_metrics(scales.log_tracks(tracks.scales)[0], pca, seed),
    }


def _rank(
    rows: Mapping[str, Sequence[float | None]],
    pairs: Mapping[str, Sequence[GramPair]],
    lacking: str,
    side: int,
    spectra: str,
    seed: int,
) -> Metric:
    method = "least median of eff_rank/Haar null of two layers' summed unit-trace Grams, over read and write Grams"
    found = worst(rows, np.min, seed=seed, method=method, absent=lacking)
    identical = {name: sum(pair.identical for pair in of_name) for name, of_name in pairs.items()}
    found = replace(found, n={**found.n, "side": side, "identical": sum(identical.values())})
    if spectra == "none" and rows:
        return replace(found, value=None, interval=None, where=None, reason=NO_SPECTRA)
    if rows and side < SIDE:
        return replace(
            found, value=None, interval=None, where=None, reason=f"the stream has fewer than {SIDE} dimensions"
        )
    if found.value is None and any(identical.values()):
        alike = ", ".join(
            f"{name} in {count} of {len(pairs[name])} pairs" for name, count in identical.items() if count
        )
        return replace(found, reason=f"{found.reason} ({IDENTICAL}: {alike})")
    return found


def mode_metrics(tracks: Mapping[str, np.ndarray], pca: scales.ScalePca | None, seed: int) -> dict[str, Metric]:
    """Share of the first mode of the invariant scales' standardised log tracks, and its place among random walks.

    Parameters
    ----------
    tracks : name in SCALES → (layer,) log-scales. pca : theirs, standardised.
    """
    n = {
        "layers": len(next(iter(tracks.values()))) if tracks else 0,
        "scales": len(pca.families) if pca else len(tracks),
    }
    if pca is None or pca.explained is None:
        missing = Metric(value=None, n=n, reason=FEW_TRACKS)
        return {"invariant_first_mode": missing, "invariant_first_mode_walk_p": missing}
    raw = np.stack([tracks[name] for name in pca.families])  # (scale, layer)

    def share(drawn: np.ndarray) -> np.ndarray:
        return scales.shares(raw[:, drawn].swapaxes(0, 1), True)[:, 0]

    return {
        "invariant_first_mode": Metric(
            value=pca.explained[0],
            interval=intervals.bootstrap(share, raw.shape[1], seed=seed),
            n=n,
            method="share of the first mode of standardised log-scales that no exact map moves; bootstrap over layers",
        ),
        "invariant_first_mode_walk_p": Metric(
            value=scales.walk_p(raw, seed=seed),
            n=n | {"walks": scales.DRAWS},
            method="share of random walks of the tracks' own steps whose first mode explains as much or more, +1 rule",
        ),
    }


def absent(tracks: GramTracks, unmeasured: Mapping[str, str], layers: int, spectra: str) -> dict[str, str]:
    """Dotted path in the record → why nothing stands there."""
    reasons = {f"{'grams' if name in GRAMS else 'invariant_scales'}.{name}": why for name, why in unmeasured.items()}
    for name, pairs in tracks.pairs.items():
        for i, pair in enumerate(pairs):
            at = f"grams.{name}.{i}"
            if pair.distance is None:
                reasons[f"{at}.*"] = "one of the two layers' Grams is zero"
                continue
            rank = NO_SPECTRA if spectra == "none" else IDENTICAL if pair.identical else "the stream has one dimension"
            for field, why in {"align": NO_DIRECTION, "channel_r": NO_CHANNELS, "rank_ratio": rank}.items():
                if getattr(pair, field) is None:
                    reasons[f"{at}.{'*rank*' if field == 'rank_ratio' else field}"] = why
    return reasons


def scale_tracks(tracks: GramTracks) -> dict[str, list[float] | None]:
    """Every name in SCALES → its track, (layer,), or None."""
    return {name: tracks.scales.get(name) for name in SCALES}
