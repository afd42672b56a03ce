"""Figure of `delta_svd`: the hypothesis of an annealing stack, by layer: a shared map and what it leaves over."""

from checks.figures.geometry import Figure, Key, Table
from checks.figures.rows import Track, aligned
from checks.sections.section import Record, layer_names, table

MAPS, REST = "explained by a linear map of the states", "share of one direction in what is left"
FITTED = ("own_r2", "shared_r2")  # of maps of the states, on unseen prompts


def annealing(record: Record) -> Figure | None:
    """How much one map for a phase explains of its layers' writes, beside a map of each layer's own."""
    found = record["annealing"]
    count = record["num_layers"]
    own, shared = (found[key] or [None] * count for key in FITTED)
    left = found["remainder_top1"] or [None] * count
    tracks = [
        Track(name=MAPS, values=own, other=shared, chance=0.0),
        Track(name=REST, values=left),
    ]
    tracks = [track for track in tracks if any(v is not None for v in track.values)]
    if not tracks:
        return None
    columns = {MAPS: own, "by the map of its phase": shared, REST: left}
    return Figure(
        id="delta_svd-annealing",
        caption=(
            "How much of a layer’s write a linear map of its state explains on unseen prompts: a map of its own, or "
            "one that all layers of its phase share; and how much of what the shared map leaves lies in one direction."
        ),
        rows=aligned(tracks, count),
        keys=(Key(name="own map; what is left", tone="s0"), Key(name="map of its phase", tone="s1", kind="dash")),
        tables=(table("Maps of the states, by layer", "layer", layer_names(count), columns), _ranks(record)),
    )


def _ranks(record: Record) -> Table:
    ranks = record["annealing"]["phase_ranks"]
    caption = "Effective rank of a phase’s stacked directions ÷ chance"
    return table(caption, "phase", list(ranks), {"rank": list(ranks.values())})
