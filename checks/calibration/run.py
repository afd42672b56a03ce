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
from checks.calibration import simulate_tests as tests
from checks.controls.surrogates import MARGIN

COVERED = (0.85, 0.97)  # asked of a nominal 0.90, for φ up to 0.8
SIZE = 0.075  # at most, for a nominal 0.05
POWER = 0.80
LAW_RATE = 0.5  # noise deviations a layer: a law of less is not told from a walk of 24 layers, whatever its R²
RELATED, RELATED_WITHIN = 0.5, 0.3
TEST_LENGTHS = (12, 24, 48)
PHASE_LENGTHS = (12, 24)  # of deeper ones a trial takes seconds
TIMES = 10  # more trials of what costs nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400, help="of a cheap case; costly ones get a fourth of them")
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
        f"{made} Shares of {trials} simulated cases, of {few} where the interval or the test itself resamples, so that "
        f"a share has a standard error: {errors[0]} and {errors[1]} at 0.90, {errors[2]} at 0.05.",
        "## Coverage of nominal 90 % intervals",
        f"Asked: {COVERED[0]} at least, for φ up to 0.8 at 24 layers or more; bold is less. Fewer layers are held to "
        f"the same. Above {COVERED[1]} (in italics) an interval is wider than it need be: on a short track persistence "
        "cannot be told from chance, and is allowed for. φ = 0.9 is beyond what is promised, and marked likewise.",
        _coverage(trials, seed),
        "## Size of nominal 5 % tests",
        f"Asked: at most {SIZE}.",
        _sizes(few, seed),
        "## Power at the planted sizes",
        f"Asked: {POWER}. A law of {LAW_RATE} noise deviations a layer; r = {RELATED} over all heads, {RELATED_WITHIN} "
        "within layers; |cos| or a rank ratio that differs by 0.1 between phases. Where the power is less, p > 0.05 "
        "says nothing, and every p-value has its own power beside it in the record.",
        _powers(few, seed),
        "## What controls plant",
        "A schedule about 0.9^ℓ of which the law explains R² of the variance, in the sample: share whose interval of "
        f"R² clears {plants.LIMIT}. Controls plant {plants.LIMIT + MARGIN:.2f}, the least with {POWER} in every row.",
        _schedules(few, seed),
        "Unrelated layers that all write into the same directions as well, as much as by themselves; r counts the "
        "dimensions of the write without that, of 128. DS3 sees the plant where one of its two numbers fails. Of a "
        "write of few dimensions an image has few too, so that of eight dimensions only r are filled. A random "
        "function of what a layer reads, of the size of its weights, is no plant where the layer answers to that three times as "
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
            rows.append([name, length, *map(_covered, found)])
    return _table(("interval", "layers", *sim.PERSISTENCE), rows)


def _covered(share: float) -> str:
    return f"*{share:.3f}*" if share > COVERED[1] else _marked(share, share >= COVERED[0])


def _sizes(trials: int, seed: int) -> str:
    common = dict(trials=trials, seed=seed)
    rows = []
    for length in TEST_LENGTHS:
        found = [tests.law(length, phi, **common) for phi in tests.DRIFT.values()]
        rows.append(["law among walks", length, *_bounded(found), "–"])
    for length in TEST_LENGTHS:
        found = [tests.best_of_seven(length, phi, **common) for phi in tests.DRIFT.values()]
        trends = tests.best_of_seven(length, 0.0, trend=tests.PER_LAYER, **common)
        rows.append(["best of seven over depth", length, *_bounded([*found, trends])])
    sharing = {
        length: [tests.phase_sharing(length, phi, **common) for phi in tests.DRIFT.values()] for length in PHASE_LENGTHS
    }
    for i, name in ((0, "phases that share (DS4)"), (2, "one shares more (AN5)")):
        rows += [[name, length, *_bounded(case[i] for case in found), "–"] for length, found in sharing.items()]
    over_depth = _table(("test", "layers", *tests.DRIFT, "two trends"), rows)
    rows = []
    for length in TEST_LENGTHS:
        found = [tests.within(length, *case, **common) for case in tests.SHAPES]
        free = [tests.within(length, *case, moved=case[0], **common) for case in tests.SHAPES]
        rows.append(["heads move with their group", length, *_bounded(found)])
        rows.append(["heads move freely (not used)", length, *_bounded(free)])
    return "\n\n".join([over_depth, _shapes(rows), _worst(trials, seed), _many(TIMES * trials, seed)])


def _worst(trials: int, seed: int) -> str:
    rows = []
    for length in PHASE_LENGTHS:
        for phi in (0.0, 0.8):
            equal = tests.worst_family(length, phi, trials=trials, seed=seed)
            one = tests.worst_family(length, phi, trials=trials, seed=seed, outside=1)
            cells = _bounded([equal["fail"], equal["pass"], one["fail"], one["pass"]])
            rows.append([length, f"{phi:g}", *cells])
    head = ("worst of seven families: layers", "φ", "all on the limit: fails", "passes", "one on it: fails", "passes")
    return _table(head, rows)


def _many(trials: int, seed: int) -> str:
    rows = [["nineteen twins, stopped at five", "–", *_bounded([tests.twins(trials=trials, seed=seed)])]]
    for correlation in (0.0, 0.5):
        raw, adjusted = tests.one_page(correlation, trials=trials, seed=seed)
        rows.append([f"{tests.CLAIMS} answers, correlated at {correlation:g}", f"{raw:.3f}", *_bounded([adjusted])])
    return _table((f"of {trials} cases", "as they stand", "as used"), rows)


def _powers(trials: int, seed: int) -> str:
    common = dict(trials=trials, seed=seed)
    rows = []
    for length in TEST_LENGTHS:
        law = [tests.law(length, phi, rate=LAW_RATE, **common) for phi in sim.PERSISTENCE.values()]
        rows.append(["law among walks", length, *map(_seen, law)])
    for length in TEST_LENGTHS:
        related = [tests.best_of_seven(length, phi, planted=RELATED, **common) for phi in sim.PERSISTENCE.values()]
        rows.append(["best of seven over depth", length, *map(_seen, related)])
    sharing = {
        length: [tests.phase_sharing(length, phi, trials=max(trials // 5, 1), seed=seed + 1)
                 for phi in sim.PERSISTENCE.values()]
        for length in PHASE_LENGTHS
    }  # fmt: skip
    for i, name in ((1, "phases that share (DS4)"), (3, "one shares more (AN5)")):
        rows += [[name, length, *(_seen(case[i]) for case in found)] for length, found in sharing.items()]
    over_depth = _table(("test", "layers", *sim.PERSISTENCE), rows)
    rows = []
    for length in TEST_LENGTHS:
        found = [tests.within(length, *case, planted=RELATED_WITHIN, **common) for case in tests.SHAPES]
        rows.append(["heads move with their group", length, *map(_seen, found)])
    return over_depth + "\n\n" + _shapes(rows)


def _shapes(rows: Sequence[Sequence[object]]) -> str:
    cases = (f"{heads} heads, {groups} groups" for heads, groups in tests.SHAPES)
    return _table(("association within layers", "layers", *cases), rows)


def _schedules(trials: int, seed: int) -> str:
    sizes = [plants.LIMIT + step / 100 for step in range(4, 10)]
    rows = []
    for length in TEST_LENGTHS:
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


def _seen(share: float) -> str:
    return _marked(share, share >= POWER)


def _marked(share: float, good: bool) -> str:
    return f"{share:.3f}" if good else f"**{share:.3f}**"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
