"""Figures of `null_residual` that no change of coordinates moves: what layers read and write, and their scales."""

from checks.figures.geometry import Figure, Value
from checks.figures.rows import Track, aligned
from checks.sections.section import Record, layer_names, pair_names, table

SCALES = {
    "qk": "queries and keys, W_kᵀ W_q",
    "ov": "values and output, W_o W_v",
    "gate": "gate",
    "up_down": "feed-forward, up and down",
}


def grams(record: Record) -> Figure | None:
    """Alignment and joint rank of adjacent layers' read and write Grams."""
    found = {name: pairs for name, pairs in record["grams"].items() if pairs}
    if not found:
        return None

    def each(key: str) -> dict[str, list[Value]]:
        return {_said(name): [pair[key] if pair else None for pair in pairs] for name, pairs in found.items()}

    align, rank, errors = each("align"), each("rank_ratio"), each("rank_ratio_error")
    sampled = {f"{name}, standard error": values for name, values in errors.items() if any(values)}
    count = max(map(len, align.values()))
    tracks = [
        Track(group=group, name=name, values=values, chance=chance, paired=True)
        for group, chance, named in (("alignment", 0.0, align), ("rank ÷ chance", 1.0, rank))
        for name, values in named.items()
    ]
    return Figure(
        id="null_residual-grams",
        caption=(
            "What the parts of adjacent layers read from the stream and write to it. Alignment: how much the weights "
            "they give to directions agree, less their mean; unrelated layers have 0. Rank: of both layers’ together, "
            "over what their own spectra give with unrelated directions, 1."
        ),
        rows=aligned(tracks, count + 1),
        tables=(
            table("Alignment of adjacent layers’ Grams", "layers", pair_names(count), align),
            table("Effective rank of summed Grams ÷ chance", "layers", pair_names(count), rank | sampled),
        ),
    )


def _said(name: str) -> str:
    """A Gram by what it is: "q.read" → "q reads"."""
    part, _, side = name.partition(".")
    return f"{part} {side}s"


def invariant_scales(record: Record) -> Figure | None:
    """Scales of a layer's parts, each a product that no change of coordinates moves."""
    scales = {SCALES.get(name, name): track for name, track in record["invariant_scales"].items() if track}
    if not scales:
        return None
    count = max(map(len, scales.values()))
    return Figure(
        id="null_residual-invariant",
        caption="Scale of each part of a layer, gains folded in, on a logarithmic scale of its own.",
        rows=aligned([Track(name=name, values=track, log=True) for name, track in scales.items()], count),
        tables=(table("Invariant scales by layer", "layer", layer_names(count), scales),),
    )
