"""Strips: one finding drawn to scale, with its limit, the side that passes, and the observed value with its interval.

Horizontal positions are percentages of the strip's width, so that its words keep their size on a
phone; vertical ones are pixels. Fixed rows: observed value above, bar, ticks and limit below.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checks.figures.axes import Axis, fixed
from checks.figures.geometry import CHARACTER, Anchor
from checks.figures.numbers import apart, number
from checks.figures.paths import tidy

EDGE = 14.0  # percent from an end within which words are anchored to it
MOST_CONTROLS = 24  # hollow marks on a strip; of more values, that many evenly by rank
NARROWEST = 290.0  # pixels, a strip on a phone: words are kept apart at this width and so at every other


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word at a place on the strip."""

    x: float  # percent
    text: str
    anchor: Anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Places in percent of the width, and words, of one finding."""

    title: str
    desc: str
    pass_from: float  # percent
    pass_width: float
    limit: float
    limit_word: Word
    dot: float
    dot_word: Word
    interval: tuple[float, float] | None
    noise: tuple[float, float] | None  # left end and width of the band that noise moves the dot in
    controls: tuple[float, ...]  # percent, of models that are not the model
    controls_words: str  # how many there are, how many are drawn, and their range
    ticks: tuple[Word, ...]


def strip(
    finding: Mapping[str, Any], *, controls: Sequence[tuple[str, float]] = (), noise: float | None = None
) -> Strip | None:
    """The strip of one finding (a plain `checks.claims.gate.Finding`); None where there is no number.

    Parameters
    ----------
    controls : (name, value) of the same number on models that are not the model.
    noise : how far the number moves under changes that should not move it.
    """
    observed, threshold, interval = finding["observed"], finding["threshold"], finding["interval"]
    if observed is None or threshold is None or not math.isfinite(observed):
        return None
    band = (observed - noise, observed + noise) if noise else None
    low, high = _domain([observed, threshold, *(interval or ()), *(band or ()), *(value for _, value in controls)])
    axis = fixed(low, high, label=finding["quantity"], count=4)
    seen, limit = apart(observed, threshold)
    unit = f" {finding['unit']}" if finding["unit"] else ""
    dot, limit_at = _percent(axis, observed), _percent(axis, threshold)
    limit_word = _word(limit_at, f"limit {SYMBOLS[finding['comparator']]} {limit}")
    pass_from, pass_to = (0, limit_at) if finding["comparator"].startswith("<") else (limit_at, 100.0)
    return Strip(
        title=finding["quantity"],
        desc=(
            f"Observed {seen}{unit}{_between(', interval ', interval)}; "
            f"the limit is {COMPARATORS[finding['comparator']]} {limit}{unit}."
        ),
        pass_from=pass_from,
        pass_width=tidy(pass_to - pass_from, 2),
        limit=limit_at,
        limit_word=limit_word,
        dot=dot,
        dot_word=_word(dot, f"{seen}{unit}"),
        interval=_ends(axis, interval),
        noise=_start_and_width(_ends(axis, band)),
        controls=tuple(_percent(axis, value) for _, value in drawn(controls)),
        controls_words=_how_many([value for _, value in controls], unit),
        ticks=_apart([_word(_percent(axis, tick.value), tick.label) for tick in axis.ticks], limit_word),
    )


COMPARATORS = {"<=": "at most", "<": "below", ">=": "at least", ">": "above"}
SYMBOLS = {"<=": "≤", "<": "<", ">=": "≥", ">": ">"}


def _percent(axis: Axis, value: float) -> float:
    """Place on the strip in percent of its width, at an end for what lies outside."""
    return tidy(100 * axis.clamp(value), 2)


def _ends(axis: Axis, interval: Sequence[float] | None) -> tuple[float, float] | None:
    return (_percent(axis, interval[0]), _percent(axis, interval[1])) if interval else None


def _start_and_width(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return (ends[0], tidy(ends[1] - ends[0], 2)) if ends else None


def _between(name: str, interval: Sequence[float] | None) -> str:
    """An interval under its name, "interval 0.1 to 0.3"; nothing where there is none."""
    return f"{name}{number(interval[0])} to {number(interval[1])}" if interval else ""


def drawn(controls: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """All control values, or so many of them evenly by rank, least and greatest included."""
    ranked = sorted(controls, key=lambda control: control[1])
    last, most = len(ranked) - 1, MOST_CONTROLS - 1
    return ranked if last <= most else [ranked[round(i * last / most)] for i in range(MOST_CONTROLS)]


def _how_many(values: Sequence[float], unit: str) -> str:
    if len(values) < 2:
        return f"Hollow: the control, {number(values[0])}{unit}." if values else ""
    shown = "Hollow" if len(values) <= MOST_CONTROLS else f"Hollow, {MOST_CONTROLS} of them drawn"
    return f"{shown}: {len(values)} control values, {number(min(values))} to {number(max(values))}{unit}."


def _apart(ticks: list[Word], limit: Word) -> tuple[Word, ...]:
    """The ticks whose words touch neither the limit's nor each other's."""
    kept: list[Word] = []
    for tick in ticks:
        left, right = _extent(tick)
        if all(left > b or right < a for a, b in map(_extent, [limit, *kept])):
            kept.append(tick)
    return tuple(kept)


def _extent(word: Word) -> tuple[float, float]:
    """Left and right end of a word in percent of the narrowest strip, with a little air."""
    width = 100 * CHARACTER * (len(word.text) + 1) / NARROWEST
    left = word.x - {"start": 0.0, "middle": width / 2, "end": width}[word.anchor]
    return left, left + width


def _domain(shown: Sequence[float]) -> tuple[float, float]:
    low, high = min(shown), max(shown)
    if low >= 0 and low < high / 2:
        low = 0.0  # a magnitude starts at zero
    room = 0.15 * (high - low) or abs(high) / 2 or 1.0
    return (low if low == 0 else low - room), high + room


def _word(x: float, text: str) -> Word:
    return Word(x=x, text=text, anchor="start" if x < EDGE else "end" if x > 100 - EDGE else "middle")
