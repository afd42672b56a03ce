"""Figures of `null_residual`: likeness of adjacent layers, family by family."""

from analyses.weights.architectures import FAMILIES, GAINS, MATRICES
from checks.figures.geometry import Figure, Key, Value
from checks.figures.rows import Track, aligned
from checks.sections.null_residual.grams import grams, invariant_scales
from checks.sections.null_residual.scale_modes import modes, scales
from checks.sections.section import Record, pair_names, table

ERROR = ", standard error"  # of what was sampled
BAND = 2  # standard deviations on either side of chance that are shaded


def figures(record: Record) -> dict[str, Figure]:
    drawn = {
        "grams": grams(record),
        "invariant": invariant_scales(record),
        "cosine": _cosine(record),
        "matched": _matched(record),
        "rank": _rank(record),
        "scales": scales(record),
        "modes": modes(record),
    }
    return {name: figure for name, figure in drawn.items() if figure}


def column(record: Record, family: str, key: str) -> list[Value]:
    """One number of one family over the pairs of layers."""
    return [pair["families"][family][key] for pair in record["pair_results"]]


def families_of(record: Record) -> list[str]:
    return [family for family in FAMILIES if family in record["summary"]]


def _band(record: Record, family: str) -> tuple[list[Value], list[Value]]:
    null, sd = column(record, family, "null_cos"), column(record, family, "null_sd")
    reach = [None if m is None or s is None else BAND * s for m, s in zip(null, sd, strict=True)]
    low = [None if r is None else max(-1.0, m - r) for m, r in zip(null, reach, strict=True)]
    high = [None if r is None else min(1.0, m + r) for m, r in zip(null, reach, strict=True)]
    return low, high


def _cosine(record: Record) -> Figure:
    count = len(record["pair_results"])
    families, names = families_of(record), pair_names(count)
    tracks = [
        Track(
            name=family,
            family=family,
            group="projections" if family in MATRICES else "gains",
            values=column(record, family, "cos"),
            band=_band(record, family),
            paired=True,
        )
        for family in sorted(families, key=lambda family: family in GAINS)
    ]
    return Figure(
        id="null_residual-cosine",
        caption=(
            "Cosine of each layer’s tensor with the next layer’s, in stored coordinates, each family on its own "
            f"scale. The band is what a random matching of the two tensors’ entries gives, ± {BAND} standard "
            "deviations."
        ),
        rows=aligned(tracks, count + 1),
        tables=(
            table("Cosine by pair of layers", "layers", names, {f: column(record, f, "cos") for f in families}),
            table(
                "Its chance level (mean under a random matching of entries)",
                "layers",
                names,
                {f: column(record, f, "null_cos") for f in families},
            ),
        ),
    )


ROLES = {
    "gate": "neurons, scored on gate",
    "up": "neurons, scored on up",
    "down": "neurons, scored on down",
    "qk": "heads, scored on q and k",
    "vo": "heads, scored on v and o",
}


def _matched(record: Record) -> Figure | None:
    pairs = record["pair_results"]
    roles = [role for role in ROLES if any(pair["matched"].get(role) is not None for pair in pairs)]
    if not roles:
        return None
    count, names = len(pairs), pair_names(len(pairs))
    tracks, nulls = (
        {role: [pair[key][role] for pair in pairs] for role in roles} for key in ("matched", "matched_null")
    )
    rows = [
        Track(name=ROLES[role], values=track, other=nulls[role], chance=0.0, paired=True)
        for role, track in tracks.items()
    ]
    errors = {role: [pair.get("matched_error", {}).get(role) for pair in pairs] for role in roles}
    columns = {}
    for role in roles:
        columns |= {ROLES[role]: tracks[role], f"{ROLES[role]}, chance": nulls[role]}
        columns |= {f"{ROLES[role]}{ERROR}": errors[role]} if any(errors[role]) else {}
    return Figure(
        id="null_residual-matched",
        caption=(
            "The same after the best matching of neurons and of heads, with each matrix scored on a matching "
            "that was found on the others. "
            "Chance: the same with one layer’s coordinates scrambled."
        ),
        rows=aligned(rows, count + 1, shared=True),
        keys=(Key(name="measured", tone="s0"), Key(name="chance", tone="s1", kind="dash")),
        tables=(table("Mean cosine of matched units", "layers", names, columns),),
    )


def _rank(record: Record) -> Figure:
    count, names = len(record["pair_results"]), pair_names(len(record["pair_results"]))
    families = [f for f in families_of(record) if f in MATRICES]
    tracks = [
        Track(
            name=f"{family}, of {record['sides'][family]}",
            family=family,
            values=column(record, family, "resid_eff_rank"),
            other=column(record, family, "eff_rank_haar"),
            paired=True,
        )
        for family in families
    ]
    columns = {}
    for family in families:
        columns[f"{family}, of {record['sides'][family]}"] = column(record, family, "resid_eff_rank")
        columns[f"{family}, chance"] = column(record, family, "eff_rank_haar")
        if any(errors := column(record, family, "resid_eff_rank_error")):
            columns[f"{family}{ERROR}"] = errors
    return Figure(
        id="null_residual-rank",
        caption=(
            "Effective rank of the difference between a layer’s normalised matrix and the next one’s. Chance keeps "
            "both layers’ singular values and makes their singular vectors random (Haar)."
        ),
        rows=aligned(tracks, count + 1),
        keys=(Key(name="residual", tone="s0"), Key(name="chance", tone="s1", kind="dash")),
        tables=(table("Effective rank of the residual, and its Haar chance level", "layers", names, columns),),
    )
