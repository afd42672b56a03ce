"""One finding drawn to scale: limit, pass side, observed value with its interval.

Horizontal positions are percentages of the strip's width, so that its words keep their size on a
phone; vertical ones are pixels. Fixed rows: observed value above, bar, ticks and limit below.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from checks.axes import linear_ticks
from checks.figures import CHARACTER, Anchor
from checks.numbers import apart, number

EDGE = 14.0  # percent from an end within which words are anchored to it
NARROWEST = 290.0  # pixels, a strip on a phone: words are kept apart at this width and so at every other


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    x: float  # percent
    text: str
    anchor: Anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    title: str
    desc: str
    pass_from: float  # percent
    pass_width: float
    limit: float
    limit_word: Word
    dot: float
    dot_word: Word
    dot_tip: str
    interval: tuple[float, float] | None
    interval_tip: str
    ticks: tuple[Word, ...]


def strip(finding: Mapping[str, Any]) -> Strip | None:
    """The strip of one finding (a plain `checks.gate.Finding`); None where there is no number."""
    observed, threshold, interval = finding["observed"], finding["threshold"], finding["interval"]
    if observed is None or threshold is None or not math.isfinite(observed):
        return None
    low, high = _domain(observed, threshold, interval)

    def at(value: float) -> float:
        return round(100 * (min(high, max(low, value)) - low) / (high - low), 2)

    below = finding["comparator"].startswith("<")
    seen, limit = apart(observed, threshold)
    words = COMPARATORS[finding["comparator"]]
    spanned = f", interval {number(interval[0])} to {number(interval[1])}" if interval else ""
    unit = f" {finding['unit']}" if finding["unit"] else ""
    limit_word = _word(at(threshold), f"limit {SYMBOLS[finding['comparator']]} {limit}")
    return Strip(
        title=finding["quantity"],
        desc=f"Observed {seen}{unit}{spanned}; the limit is {words} {limit}{unit}.",
        pass_from=0.0 if below else at(threshold),
        pass_width=at(threshold) if below else round(100 - at(threshold), 2),
        limit=at(threshold),
        limit_word=limit_word,
        dot=at(observed),
        dot_word=_word(at(observed), f"{seen}{unit}"),
        dot_tip=f"observed {number(observed, 6)}{unit}",
        interval=(at(interval[0]), at(interval[1])) if interval else None,
        interval_tip=f"90 % interval {number(interval[0], 4)} to {number(interval[1], 4)}" if interval else "",
        ticks=_apart([_word(at(tick.value), tick.label) for tick in linear_ticks(low, high, 4)], limit_word),
    )


COMPARATORS = {"<=": "at most", "<": "below", ">=": "at least", ">": "above"}
SYMBOLS = {"<=": "≤", "<": "<", ">=": "≥", ">": ">"}


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


def _domain(observed: float, threshold: float, interval: tuple[float, float] | None) -> tuple[float, float]:
    shown = [observed, threshold, *(interval or ())]
    low, high = min(shown), max(shown)
    if low >= 0 and low < high / 2:
        low = 0.0  # a magnitude starts at zero
    room = 0.15 * (high - low) or abs(high) / 2 or 1.0
    return (low if low == 0 else low - room), high + room


def _word(x: float, text: str) -> Word:
    return Word(x=x, text=text, anchor="start" if x < EDGE else "end" if x > 100 - EDGE else "middle")
