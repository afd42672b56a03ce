"""`make calibrate`: the table of coverage, size and power in docs/calibration.md.

Run as `python -m checks.calibration.run`.
"""

import argparse
import datetime
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from checks.calibration import plants
from checks.calibration import simulate as sim
from checks.controls.surrogates import MARGIN

COVERED = (0.85, 0.97)  # asked of a nominal 0.90, for φ up to 0.8 and 24 layers or more
SIZE = 0.075  # at most, for a nominal 0.05
POWER = 0.80
LAW_RATE = 0.5  # noise deviations a layer: a law of less is not told from a walk of 24 layers, whatever its R²
RELATED, RELATED_WITHIN = 0.5, 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=800, help="of a cheap case; costly ones get a fourth of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/calibration.md"))
    options = parser.parse_args()
    options.out.write_text(page(options.trials, options.seed), encoding="utf-8")


def page(trials: int, seed: int) -> str:
    """The whole page as Markdown."""
    few = max(trials // 4, 1)
    today = datetime.datetime.now(datetime.UTC).date()
    made = f"Made by `make calibrate` (`python -m checks.calibration.run --trials {trials} --seed {seed}`), {today}."
    errors = [f"{math.sqrt(s * (1 - s) / n):.3f}" for s, n in ((0.9, trials), (0.9, few), (0.05, few))]
    parts = [
        "# Calibration of intervals and tests",
        f"{made} Shares of {trials} simulated cases, of {few} where the interval or the test itself resamples. "
        f"Standard errors: {errors[0]} and {errors[1]} at 0.90, {errors[2]} at 0.05. Bold: outside what is asked.",
        "## Coverage of nominal 90 % intervals",
        f"Asked: {COVERED[0]} to {COVERED[1]} for φ up to 0.8 at 24 layers or more. What is bold at 12 layers, or at "
        "φ = 0.9, is no promise: a claim there needs 24 layers, or 48.",
        _coverage(trials, seed),
        "## Size of nominal 5 % tests",
        f"Asked: at most {SIZE}.",
        _sizes(few, seed),
        "## Power at the planted sizes",
        f"Asked: {POWER}. A law of {LAW_RATE} noise deviations a layer; r = {RELATED} over all heads, {RELATED_WITHIN} "
        "within layers. Where the power is less, p > 0.05 says nothing: more layers are needed, and every p-value of a "
        "law or an association has its own power beside it in the record.",
        _powers(few, seed),
        "## What controls plant",
        "A schedule about 0.9^ℓ of which the law explains R² of the variance, in the sample: share whose interval of R² "
        f"clears {plants.LIMIT}. Controls plant {plants.LIMIT + MARGIN:.2f}, the least with {POWER} in every row.",
        _schedules(few, seed),
        "Unrelated layers that all write into the same directions as well, as much as by themselves; r counts the "
        "dimensions of the write without that, of 128. DS3 sees the plant where one of its two numbers fails. Of a "
        "write of few dimensions an image has few too, so that of eight dimensions only r are filled. A random function "
        "of what a layer reads, of the size of its weights, is no plant where the layer answers to that three times as "
        "strongly: its energy is a ninth.",
        _common_writes(seed),
    ]
    return "\n\n".join(parts) + "\n"


def _coverage(trials: int, seed: int) -> str:
    rows = []
    for name, (covers, cost) in sim.INTERVALS.items():
        for length in sim.LENGTHS:
            count = max(trials // cost, 1)
            found = [sim.coverage(covers, length, phi, trials=count, seed=seed) for phi in sim.PERSISTENCE.values()]
            rows.append([name, length, *(_marked(s, COVERED[0] <= s <= COVERED[1]) for s in found)])
    return _table(("interval", "layers", *sim.PERSISTENCE), rows)


def _sizes(trials: int, seed: int) -> str:
    rows = []
    common = dict(trials=trials, seed=seed)
    for length in sim.LENGTHS:
        found = [sim.law_rejections(length, phi, **common) for phi in sim.DRIFT.values()]
        rows.append(["law among walks", length, *_bounded(found), "–"])
    for length in sim.LENGTHS:
        found = [sim.shift_rejections(length, phi, **common) for phi in sim.DRIFT.values()]
        trends = sim.shift_rejections(length, 0.0, trend=sim.PER_LAYER, **common)
        rows.append(["association over depth", length, *_bounded([*found, trends])])
    over_depth = _table(("test", "layers", *sim.DRIFT, "two trends"), rows)
    rows = []
    for length in sim.LENGTHS:
        found = [sim.within_rejections(length, *case, **common) for case in sim.GROUPS]
        free = [sim.within_rejections(length, *case, moved=case[0], **common) for case in sim.GROUPS]
        rows.append(["heads move with their group", length, *_bounded(found)])
        rows.append(["heads move freely (not used)", length, *_bounded(free)])
    cases = (f"{heads} heads, {groups} groups" for heads, groups in sim.GROUPS)
    return over_depth + "\n\n" + _table(("association within layers", "layers", *cases), rows)


def _powers(trials: int, seed: int) -> str:
    common = dict(trials=trials, seed=seed)
    rows = []
    for length in sim.LENGTHS:
        law = [sim.law_rejections(length, phi, rate=LAW_RATE, **common) for phi in sim.PERSISTENCE.values()]
        related = [sim.shift_rejections(length, phi, planted=RELATED, **common) for phi in sim.PERSISTENCE.values()]
        rows.append(["law among walks", length, *(_marked(s, s >= POWER) for s in law)])
        rows.append(["association over depth", length, *(_marked(s, s >= POWER) for s in related)])
    over_depth = _table(("test", "layers", *sim.PERSISTENCE), sorted(rows, key=lambda row: row[0], reverse=True))
    rows = []
    for length in sim.LENGTHS:
        found = [sim.within_rejections(length, *case, planted=RELATED_WITHIN, **common) for case in sim.GROUPS]
        rows.append(["heads move with their group", length, *(_marked(s, s >= POWER) for s in found)])
    cases = (f"{heads} heads, {groups} groups" for heads, groups in sim.GROUPS)
    return over_depth + "\n\n" + _table(("association within layers", "layers", *cases), rows)


def _schedules(trials: int, seed: int) -> str:
    sizes = [plants.LIMIT + step / 100 for step in range(4, 10)]
    rows = []
    for length in sim.LENGTHS:
        for name, phi in list(sim.PERSISTENCE.items())[:3]:
            found = [plants.seen_schedules(length, phi, r2, trials=trials, seed=seed) for r2 in sizes]
            rows.append([length, name, *(_marked(s, s >= POWER) for s in found)])
    return _table(("layers", "noise", *(f"R² = {r2:.2f}" for r2 in sizes)), rows)


def _common_writes(seed: int) -> str:
    kinds = {"nothing": (0, None), "one direction": (1, None), "eight directions": (8, None)}
    kinds["eight, by the weights' size"] = (8, 3.0)
    rows = []
    for name, (rank, response) in kinds.items():
        for r in (2, 4, 8, 16, 64):
            found = plants.common_writes(r, rank, response=response, seed=seed)
            rows.append([name, r, *(f"{value:.2f}, {plants.WORDS[status]}" for value, status in found.values())])
    return _table(("common part", "r", *plants.LIMITS), rows)


def _bounded(shares: Iterable[float]) -> list[str]:
    return [_marked(share, share <= SIZE) for share in shares]


def _marked(share: float, good: bool) -> str:
    return f"{share:.3f}" if good else f"**{share:.3f}**"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
