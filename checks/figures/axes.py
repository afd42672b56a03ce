"""Axes: the domain of a figure, where a number lies in it, and its ticks.

Ticks are multiples of 1, 2 or 5 × 10^k inside the domain (powers of ten on a log axis), as few as
read well. A place on an axis is a fraction of its length, or None for a number that is missing or
outside, so that a gap in the data stays a gap in the figure.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from checks.figures.numbers import number, scientific

PADDING = 0.05  # of the data's range, so that no point sits on the frame
TICKS = 5  # about this many; few are read, many are clutter


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A number written beside an axis."""

    value: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A domain, its ticks and its name."""

    low: float
    high: float  # > low
    kind: Literal["linear", "log"]
    label: str  # quantity and unit
    ticks: tuple[Tick, ...]

    def at(self, value: float | None) -> float | None:
        """Fraction of the axis' length in [0, 1]; None for what is missing or outside the domain."""
        if value is None or not math.isfinite(value) or (self.kind == "log" and value <= 0):
            return None
        low, high, value = (_log(v) if self.kind == "log" else v for v in (self.low, self.high, value))
        fraction = (value - low) / (high - low)
        return min(1.0, max(0.0, fraction)) if -1e-9 <= fraction <= 1 + 1e-9 else None

    def clamp(self, value: float) -> float:
        """Fraction in [0, 1] with what lies outside moved to the end: for bands and limits."""
        inside = min(self.high, max(self.low, value))
        fraction = self.at(inside)
        assert fraction is not None, f"{value} on an axis from {self.low} to {self.high}"
        return fraction


def linear(values: Iterable[float | None], *, label: str, include: tuple[float, ...] = (), count: int = TICKS) -> Axis:
    """A linear axis that covers the finite values and `include`, with a little room around them."""
    low, high = _domain([*values, *include])
    room = PADDING * (high - low)
    low, high = low - room, high + room
    return Axis(low=low, high=high, kind="linear", label=label, ticks=linear_ticks(low, high, count))


def fixed(low: float, high: float, *, label: str, count: int = TICKS) -> Axis:
    """A linear axis with exactly this domain, such as 0 to 1 for a fraction."""
    return Axis(low=low, high=high, kind="linear", label=label, ticks=linear_ticks(low, high, count))


def layers(layers_: int, *, label: str = "layer", first: int = 0, count: int = 6) -> Axis:
    """Layer numbers first … first + layers_ − 1, half a step of room, ticks at whole numbers only."""
    low, high = first - 0.5, first + layers_ - 0.5
    step = max(1, round(round_step(layers_ / count)))
    ticks = tuple(Tick(value=v, label=str(v)) for v in range(0, first + layers_, step) if v >= first)
    return Axis(low=low, high=high, kind="linear", label=label, ticks=ticks)


def logarithmic(values: Iterable[float | None], *, label: str) -> Axis:
    """A log axis over the positive values; ticks at powers of ten, and at 2 and 5 below two decades."""
    positive = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    low, high = (min(positive), max(positive)) if positive else (0.1, 10.0)
    if low == high:
        low, high = low / 2, high * 2
    room = (high / low) ** PADDING
    low, high = low / room, high * room
    return Axis(low=low, high=high, kind="log", label=label, ticks=log_ticks(low, high))


def linear_ticks(low: float, high: float, count: int = TICKS) -> tuple[Tick, ...]:
    """Multiples of 1, 2 or 5 × 10^k inside [low, high], rising, about `count` of them."""
    step = round_step((high - low) / count)
    while (last := math.floor(high / step + 1e-9)) - (first := math.ceil(low / step - 1e-9)) < 1:
        count += 1  # one tick is no scale
        step = round_step((high - low) / count)
    values = [min(high, max(low, k * step)) for k in range(first, last + 1)]
    return tuple(Tick(value=v, label=_tick_label(v, step)) for v in values)


def log_ticks(low: float, high: float) -> tuple[Tick, ...]:
    """Powers of ten inside [low, high], rising; their multiples by 2 and 5 too below two decades."""
    decades = math.log10(high / low)
    if decades < 0.7:  # less than a factor of 5: powers of ten may not occur at all
        return linear_ticks(low, high, 4)
    every = max(1, math.ceil(decades / TICKS))
    factors = (1, 2, 5) if decades < 2 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [f * 10.0**e for e in exponents if e % every == 0 for f in factors]
    return tuple(Tick(value=v, label=_power_label(v)) for v in values if low <= v <= high)


def _domain(values: Iterable[float | None]) -> tuple[float, float]:
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        half = abs(low) / 2 or 0.5
        return low - half, high + half
    return low, high


def round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 × 10^k that is `least` or more.

    >>> round_step(0.3), round_step(2), round_step(6.4)
    (0.5, 2.0, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def _log(value: float) -> float:
    return math.log10(value)


def _tick_label(value: float, step: float) -> str:
    if abs(value) < step / 2:
        return "0"
    if not 1e-4 <= step < 1e5:
        return scientific(value, 1 + _exponent(abs(value)) - _exponent(step))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}".replace("-", "−")


def _exponent(value: float) -> int:
    return math.floor(math.log10(value) + 1e-9)


def _power_label(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:g}" if value < 1000 else number(round(value))
    return scientific(value, 1).replace("1 × ", "", 1)
