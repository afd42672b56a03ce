"""Tracks over depth of two runs, drawn over each other.

One small panel a track, run A solid and run B dashed. What a page's shortened record lacks, or one run
did not measure, is not drawn.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analyses.weights.architectures import FAMILIES
from checks.figures import axes
from checks.figures.geometry import QUARTER, Figure, Key, Panel, Value
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.sections.section import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One number of every layer, or of every pair of layers."""

    title: str
    measure: str
    values: Sequence[Value]
    axis: str = "layer"
    first: int = 0  # what the first value is of


def overlays(analysis: str, a: Record, b: Record) -> Figure | None:
    """The tracks of one analysis in both runs; None where they share none."""
    left, right = ({track.title: track for track in TRACKS[analysis](record)} for record in (a, b))
    shared = [(left[title], right[title]) for title in left if title in right]
    if not shared:
        return None
    return Figure(
        id=f"{analysis}-both",
        caption="Both runs over depth.",
        panels=tuple(_panel(*pair) for pair in shared),
        keys=(Key(name="A", tone="s0"), Key(name="B", tone="s1", kind="dash")),
        size="quarter",
    )


def _panel(a: Track, b: Track) -> Panel:
    y = axes.linear([*a.values, *b.values], label=a.measure, count=4)
    x = axes.layers(max(len(a.values), len(b.values)), label=a.axis, first=a.first, count=3)
    plot = Plot(x=x, y=y, width=QUARTER, height=130)
    plot.line(range(a.first, a.first + len(a.values)), a.values, "s0")
    plot.line(range(b.first, b.first + len(b.values)), b.values, "s1", dash=True)
    return plot.panel(a.title, f"{a.title}: {_finding(a, b)}")


def _finding(a: Track, b: Track) -> str:
    apart = [abs(x - y) for x, y in zip(a.values, b.values, strict=False) if x is not None and y is not None]
    if len(a.values) != len(b.values):
        return f"A has {len(a.values)} places, B {len(b.values)}."
    if not apart:
        return "no place has a number in both runs."
    if not max(apart):
        return "both runs are the same."
    return f"A and B differ by {number(max(apart))} at most, in place {apart.index(max(apart))}."


def _null_residual(record: Record) -> Iterator[Track]:
    for family in FAMILIES:
        if family in record["summary"]:
            values = [pair["families"][family]["cos"] for pair in record["pair_results"]]
            yield Track(title=family, measure="cosine with the next layer", values=values)


def _schedule_fit(record: Record) -> Iterator[Track]:
    track = record["families"].get("input_ln")
    if track and track["track"]:
        yield Track(title="input gain", measure="‖W‖ of input_ln", values=track["track"])
    for name, fitted in record["temperature"].items():
        if fitted["track"]:
            yield Track(title=f"{name} temperature", measure="of a layer’s attention", values=fitted["track"])


def _head_grams(record: Record) -> Iterator[Track]:
    if record["similarity_matched"]:
        values = [_mean([abs(v) for v in row if v is not None]) for row in record["similarity_matched"]]
        yield Track(title="similarity, matched", measure="mean |similarity| with the next layer", values=values)
    if record["curvature"]:
        values = [_mean([v for v in row if v is not None]) for row in record["curvature"]]
        yield Track(title="negative energy", measure="mean share over heads", values=values)
    if record["overlap_by_distance"]:
        values = record["overlap_by_distance"]
        yield Track(title="overlap", measure="of top directions", values=values, axis="distance", first=1)


def _attention_stats(record: Record) -> Iterator[Track]:
    for key, title, measure in (
        ("entropy_fraction_per_head", "entropy", "fraction of its maximum, mean"),
        ("mean_logit_std_per_head", "logit spread", "mean over heads"),
        ("sink_share_per_head", "first key", "mean probability"),
    ):
        if record["dynamic"] and record["dynamic"][0][key] is not None:
            values = [_mean([v for v in layer[key] if v is not None]) for layer in record["dynamic"]]
            yield Track(title=title, measure=measure, values=values)


def _head_geometry(record: Record) -> Iterator[Track]:
    association = record["tables"]["exact"]["entropy"]
    if not association:
        return
    best = association["best"]
    values = association["descriptors"][best]["by_layer"]
    if len(values or ()) == len(association["layers"]):
        yield Track(title=f"{best} and entropy", measure="r among a layer’s heads", values=values)


def _delta_svd(record: Record) -> Iterator[Track]:
    layers = record["layers"]
    for key, title, measure in (
        ("eff_rank", "effective rank", "of the centred write"),
        ("top1_frac", "top-1 share", "of the centred write"),
    ):
        values = [layer["centred"][key] if layer["centred"] else None for layer in layers]
        yield Track(title=title, measure=measure, values=values)
    yield Track(title="step size", measure="mean ‖δ‖/‖h‖", values=[layer["rel_step_mean"] for layer in layers])


def _residual_stream(record: Record) -> Iterator[Track]:
    for key, title, measure in (
        ("norm", "length of states", "median ‖h‖"),
        ("massive_ratio", "longest state", "of the median"),
        ("cosine", "cosine of two tokens", "mean over pairs"),
    ):
        yield Track(title=title, measure=measure, values=record["ways"]["all"][key])


def _weight_spectra(record: Record) -> Iterator[Track]:
    for name, row in (record["folded"] or {}).items():
        yield Track(title=name, measure="exponent of its spectrum", values=[tail and tail["alpha"] for tail in row])


TRACKS = {
    "null_residual": _null_residual,
    "schedule_fit": _schedule_fit,
    "head_grams": _head_grams,
    "attention_stats": _attention_stats,
    "head_geometry": _head_geometry,
    "delta_svd": _delta_svd,
    "residual_stream": _residual_stream,
    "weight_spectra": _weight_spectra,
}


def _mean(values: Sequence[float]) -> Value:
    return statistics.fmean(values) if values else None
