"""The network by depth: a dozen tracks from all records on one axis of layers."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from analyses.weights.architectures import MATRICES
from checks.figures.geometry import Figure, Value
from checks.figures.rows import Track, aligned
from checks.sections.section import Record, layer_names, random_cos, table

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def network(measured: Mapping[str, Record]) -> Figure | None:
    """The overview of one model; None where no record has a track over its layers."""
    whole = {name: r for name, r in measured.items() if not r.get("error") and not r.get("skipped")}
    tracks = [track for name, draw in TRACKS.items() if name in whole for track in draw(whole[name])]
    tracks = [track for track in tracks if any(v is not None for v in track.values)]
    if not tracks:
        return None
    order = list(dict.fromkeys(GROUPS))
    tracks.sort(key=lambda track: order.index(track.group))  # stable: a group's tracks keep their order
    count = max(len(track.values) + track.paired for track in tracks)
    columns = {track.name: _padded(track, count) for track in tracks}
    return Figure(
        id="network",
        caption=(
            "Each row is one number of every layer, or of a layer and the next one, on its own scale; dashed: "
            "what chance gives. At the right: its range."
        ),
        rows=aligned(tracks, count),
        tables=(table("Every track of the overview", "layer", layer_names(count), columns),),
    )


def _padded(track: Track, count: int) -> list[Value]:
    return [*track.values, *[None] * (count - len(track.values))]


def mean(values: Sequence[Value]) -> Value:
    """Mean of what was measured; None where nothing was."""
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def _weights(record: Record) -> list[Track]:
    tracks = []
    for part in (FEED_FORWARD, ATTENTION):
        family = next((f for f in part if f in record["summary"] and f in MATRICES), None)
        if family:
            pairs = [pair["families"][family] for pair in record["pair_results"]]
            tracks.append(
                Track(
                    group="weights",
                    name=f"{family}: cos with next layer",
                    values=[pair["cos"] for pair in pairs],
                    chance=[pair["null_cos"] for pair in pairs],
                    paired=True,
                )
            )
    reads = [gram for name, gram in record["grams"].items() if name.endswith(".read")]
    if reads:
        values = [mean([pair["align"] for pair in pairs]) for pairs in zip(*reads, strict=True)]
        tracks.append(
            Track(group="weights", name="alignment of reads, next layer", values=values, chance=0.0, paired=True)
        )
    if scale := next(iter(record["invariant_scales"].values()), None):
        tracks.append(Track(group="weights", name="scale of W_kᵀ W_q (log)", values=scale, log=True))
    return tracks


def _heads(record: Record) -> list[Track]:
    folded = record["folded"]
    if not folded:
        return []
    tracks = []
    if folded["similarity"]:
        values = [mean([None if v is None else abs(v) for v in row]) for row in folded["similarity"]]
        tracks.append(Track(group="heads", name="similarity with next layer", values=values, paired=True))
    if folded["overlap"] and folded["overlap_chance"]:
        ratios = [
            None if not chance or (own := mean(row)) is None else own / chance
            for row, chance in zip(folded["overlap"], folded["overlap_chance"], strict=True)
        ]
        tracks.append(
            Track(group="heads", name="subspace overlap ÷ chance", values=ratios, chance=1.0, paired=True)
        )
    return tracks


def _attention(record: Record) -> list[Track]:
    if record["dynamic"] is None:
        return []
    named = {
        "entropy, fraction of maximum": [mean(layer["entropy_fraction_per_head"]) for layer in record["dynamic"]],
        "temperature (log)": record["temperature"],
        "weight on the first key": [mean(layer["sink_share_per_head"]) for layer in record["dynamic"]],
    }
    return [
        Track(group="attention", name=name, values=values, log=name.endswith("(log)"))
        for name, values in named.items()
        if values
    ]


def _spectrum(record: Record) -> list[Track]:
    association = record["tables"]["gained"]["entropy"]
    by_layer = association and association["descriptors"][association["best"]]["by_layer"]
    if not by_layer:
        return []
    values: list[Value] = [None] * (record["num_layers"])
    for layer, r in zip(association["layers"], by_layer, strict=True):
        values[layer] = r
    return [Track(group="spectrum", name="r of a spectrum with entropy", values=values, chance=0.0)]


def _writes(record: Record) -> list[Track]:
    def centred(key: str) -> list[Value]:
        return [layer["centred"][key] if layer["centred"] else None for layer in record["layers"]]

    cosines = record["abs_cos_centred"]
    return [
        Track(group="writes", name="effective rank of the write", values=centred("eff_rank")),
        Track(group="writes", name="share of its first direction", values=centred("top1_frac")),
        Track(
            group="writes",
            name="step ‖δ‖/‖h‖ (log)",
            values=[layer["rel_step_mean"] for layer in record["layers"]],
            log=True,
        ),
        Track(
            group="writes",
            name="|cos| of top direction, next layer",
            values=[cosines[i + 1][i] for i in range(len(cosines) - 1)],
            chance=random_cos(record["hidden"]),
            paired=True,
        ),
    ]


def _stream(record: Record) -> list[Track]:
    """States are one more than layers: what enters each layer is drawn, not what enters the final norm."""
    own, layers = record["ways"]["all"], record["num_layers"]
    named = {
        "length of states ‖h‖ (log)": own["norm"],
        "longest state ÷ median (log)": own["massive_ratio"],
        "cosine of two tokens": own["cosine"],
    }
    return [
        Track(group="stream", name=name, values=values[:layers], log=name.endswith("(log)"))
        for name, values in named.items()
    ]


TRACKS: Mapping[str, Callable[[Record], list[Track]]] = {
    "null_residual": _weights,
    "head_grams": _heads,
    "attention_stats": _attention,
    "head_geometry": _spectrum,
    "delta_svd": _writes,
    "residual_stream": _stream,
}
"""The tracks of each analysis; one that is not here has none in the overview."""

GROUPS = ("weights", "heads", "attention", "spectrum", "stream", "writes")
"""In the order of the figure."""
