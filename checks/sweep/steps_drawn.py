"""A training's numbers over its steps: a panel for each that decides a claim, with its interval and its limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from checks.claims.written import deciding
from checks.figures import axes
from checks.figures.axes import Axis
from checks.figures.family import SHAPES, axis_of, place
from checks.figures.geometry import THIRD, Column, Figure, Key, Panel, Path, Table
from checks.figures.numbers import number
from checks.figures.paths import polyline
from checks.figures.plots import Plot
from checks.figures.rows import HEIGHT, WIDTH
from checks.figures.strips import SYMBOLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One checkpoint of a series."""

    step: int
    name: str  # as asked for
    href: str  # of its page
    content: str | None  # digest of its tensors
    claims: Mapping[str, Mapping[str, Any]]  # claim id → outcome
    files: Mapping[str, str] = field(default_factory=dict)  # name → sha256


def claim_of(steps: Sequence[Step], id: str) -> Mapping[str, Any]:
    """The claim at the first step that has it."""
    return next(step.claims[id] for step in steps if id in step.claims)


def figure(id: str, name: str, steps: Sequence[Step], ids: Sequence[str]) -> Figure | None:
    """A panel for every number that decides one of these claims, where two steps have it."""
    panels, columns, used = [], [], set()
    for claim in ids:
        for k, finding in enumerate(claim_of(steps, claim)["findings"]):
            track = [_finding(step, claim, k) for step in steps]
            if sum(f is not None and f["observed"] is not None for f in track) < 2:
                continue
            panels.append(_panel(claim, finding, steps, track))
            columns.append((f"{claim}: {finding['quantity']}", [_written(f) for f in track]))
            used |= {step.claims[claim]["verdict"] for step, f in zip(steps, track, strict=True) if f}
    if not panels:
        return None
    rows = tuple((number(s.step), *(cells[i] for _, cells in columns)) for i, s in enumerate(steps))
    named = tuple(Column(name=name) for name, _ in columns)
    table = Table(columns=(Column(name="Step"), *named), rows=rows, caption=f"The numbers, step by step: {name}")
    keys = [Key(name=v, tone="s0", kind="mark", shape=shape) for v, shape in SHAPES.items() if v in used]
    return Figure(
        id=id,
        caption="Over training: the number, its 90 % interval, and the limit that was stated beforehand.",
        panels=tuple(panels),
        keys=(*keys, Key(name="limit", tone="limit", kind="dash")),
        tables=(table,),
        size="third",
    )


def _finding(step: Step, claim: str, k: int) -> Mapping[str, Any] | None:
    return step.claims[claim]["findings"][k] if claim in step.claims else None


def _written(finding: Mapping[str, Any] | None) -> str:
    return number(finding["observed"] if finding else None)


def _panel(claim: str, finding: Mapping[str, Any], steps: Sequence[Step], track: Sequence[Any]) -> Panel:
    at = [step.step for step in steps]
    values = [f["observed"] if f else None for f in track]
    ends = [(f["interval"] if f else None) or (None, None) for f in track]
    lows, highs = [low for low, _ in ends], [high for _, high in ends]
    limit = finding["threshold"]
    unit = finding["unit"] or ""
    y = axes.linear([*values, *lows, *highs, limit], label=unit, count=4)
    plot = Plot(x=over(at), y=y, width=THIRD, height=170)
    xs = [place(step, plot.x) for step in at]
    plot.band(xs, lows, highs, "s0 pale")
    plot.line(xs, values, "s0")
    if limit is not None:
        plot.level(limit, "limit")
    for verdict, shape in SHAPES.items():
        mine = [i for i, step in enumerate(steps) if claim in step.claims and step.claims[claim]["verdict"] == verdict]
        tips = [f"step {number(at[i])}: {number(values[i])} {unit}, {verdict}" for i in mine]
        plot.points([xs[i] for i in mine], [values[i] for i in mine], "s0", shape=shape, tips=tips)
    present = [value for value in values if value is not None]
    of_limit = f"limit {SYMBOLS[finding['comparator']]} {number(limit)}; " if limit is not None else ""
    desc = f"{of_limit}from {number(present[0])} at the first step that has it to {number(present[-1])} at the last."
    return plot.panel(f"{claim}: {finding['quantity']}", desc)


def over(steps: Sequence[int]) -> Axis:
    return axis_of(steps, "step")


def spark(steps: Sequence[Step], id: str) -> dict[str, Any] | None:
    """The number that decides a claim at the last step that has it, over all steps, with its limit; None for fewer than
    two numbers. Drawn in WIDTH × HEIGHT units, steps placed as on the axis of `over`."""
    last = next(step.claims[id] for step in reversed(steps) if id in step.claims)
    finding = last["findings"][k := deciding(last)]
    track = [f["observed"] if (f := _finding(step, id, k)) else None for step in steps]
    known, limit = [v for v in track if v is not None], finding["threshold"]
    if len(known) < 2 or limit is None:
        return None
    x, y = over([step.step for step in steps]), axes.linear([*known, limit], label="")

    def point(step: int, value: float | None) -> tuple[float, float] | None:
        across, up = x.at(place(step, x)), y.at(value)
        return None if across is None or up is None else (across * WIDTH, (1 - up) * HEIGHT)

    points = [point(step.step, value) for step, value in zip(steps, track, strict=True)]
    spots = "".join(f"M{at[0]:.1f} {at[1]:.1f}h0" for at in points if at)
    level = (1 - y.clamp(limit)) * HEIGHT
    said = f"limit {SYMBOLS[finding['comparator']]} {number(limit)}"
    return {
        "desc": f"{finding['quantity']}: from {number(known[0])} to {number(known[-1])}, {said}",
        "lines": (
            Path(d=f"M0 {level:.1f}H{WIDTH:g}", tone="limit dash"),
            Path(d=polyline(points), tone="s0"),
            Path(d=spots, tone="s0 spots"),
        ),
    }
