"""The forms that `schedule_fit` fits: how each is drawn, and which wins."""

from collections.abc import Mapping

from analyses.weights.architectures import FAMILIES
from checks.figures.bars import Series
from checks.figures.numbers import number
from checks.sections.section import Record

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
    order = [*FAMILIES, *TEMPERATURES]
    return {name: tracks[name] for name in order if name in tracks and tracks[name]["status"] == "fitted"}


def best_published(track: Record) -> str:
    """The form with the largest published R²: that script's winner."""
    return max(sorted(track["fits"]), key=lambda form: track["fits"][form]["r2"])


def r2(value: float | None) -> str:
    """A coefficient of determination as written; what only rounding keeps from 0 is 0."""
    return number(0.0 if value is not None and abs(value) < ROUNDING else value)
