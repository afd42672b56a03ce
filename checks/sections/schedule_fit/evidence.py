"""Figures of `schedule_fit`: the forms that are fitted, the weight of evidence for each, and two temperatures."""

from collections.abc import Mapping, Sequence

from analyses.weights.architectures import FAMILIES
from checks.figures import axes
from checks.figures.bars import Series, share_words, stacked
from checks.figures.geometry import Figure, Key, Panel
from checks.figures.numbers import number, percent
from checks.sections.section import Record, table

ROUNDING = 1e-9  # of a sum of squares of some dozens of logarithms, generously

FORMS = {
    "constant": Series(name="constant", tone="s7"),
    "linear": Series(name="linear", tone="s0"),
    "power": Series(name="power", tone="s2"),
    "exponential": Series(name="exponential", tone="s1"),
    "offset_power": Series(name="offset power", tone="s4"),
    "two_piece": Series(name="two pieces", tone="s3"),
    "kirkpatrick": Series(name="exponential (Kirkpatrick)", tone="s1"),
    "hajek": Series(name="Hajek, c/ln(ℓ+2)", tone="s2"),
    "hajek_c2": Series(name="Hajek, c/ln(ℓ+c₂)", tone="s4"),
}
LAWS = ("constant", "kirkpatrick", "linear", "hajek", "hajek_c2")
ONE = ("constant", "linear", "power", "exponential", "offset_power", "two_piece")
TEMPERATURES = {"measured": "measured temperature", "published": "temperature as published"}


def fitted_tracks(tracks: Mapping[str, Record]) -> dict[str, Record]:
    """The tracks to which forms were fitted, families in the order of the architecture before temperatures."""
    order = [*FAMILIES, *TEMPERATURES]
    return {name: tracks[name] for name in order if name in tracks and tracks[name]["status"] == "fitted"}


def best_published(track: Record) -> str:
    """The form with the largest published R²: that script's winner."""
    return max(sorted(track["fits"]), key=lambda form: track["fits"][form]["r2"])


def r2(value: float | None) -> str:
    """A coefficient of determination as written; what only rounding keeps from 0 is 0."""
    return number(0.0 if value is not None and abs(value) < ROUNDING else value)


def weights(record: Record) -> Figure | None:
    temperatures = {n: t for n, t in fitted_tracks(record["temperature"]).items()}
    subjects = ((fitted_tracks(record["families"]), ONE, "Norms"), (temperatures, LAWS, "Temperatures"))
    drawn = [(tracks, forms, title) for tracks, forms, title in subjects if tracks]
    if not drawn:
        return None
    panels = [_weights_panel(*subject) for subject in drawn]
    used = dict.fromkeys(form for _, forms, _ in drawn for form in forms)
    every = fitted_tracks(record["families"]) | temperatures
    names = list(every)
    columns = {FORMS[f].name: [every[n]["corrected"].get(f, {}).get("weight") for n in names] for f in used}
    return Figure(
        id="schedule_fit-weights",
        caption=(
            "How much of the evidence goes to each form, by AICc; the number beside a bar is the largest "
            "weight. A bar of one colour is a decision, a bar of many is none."
        ),
        panels=tuple(panels),
        tables=(table("Akaike weights", "track", names, columns),),
    )


def _weights_panel(tracks: Mapping[str, Record], forms: Sequence[str], title: str) -> Panel:
    """One bar a track, divided among the forms by their weight."""
    shares = {
        name: {f: t["corrected"][f]["weight"] for f in forms if f in t["corrected"]} for name, t in tracks.items()
    }
    top = {name: max(parts, key=lambda f: parts[f] or 0.0) for name, parts in shares.items()}
    return stacked(
        shares,
        FORMS,
        x=axes.fixed(0, 1, label="Akaike weight"),
        title=title,
        measure="weight of each form among all that were fitted",
        desc="; ".join(f"{name}: {share_words(shares[name], top[name], FORMS[top[name]].name)}" for name in shares),
        beside={name: percent(shares[name][top[name]]) for name in shares},
        legend=tuple(Key(name=FORMS[f].name, tone=f"{FORMS[f].tone} bar", kind="area") for f in forms),
    )
