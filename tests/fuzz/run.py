"""Odd inputs by the thousand: every reader of what comes from elsewhere ends in an answer or in one line.

`make fuzz` runs it; a fault is told with the seed and number that make its input again.
"""

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from analyses.errors import InputError
from tests.fuzz.targets import Target

LONGEST = 60  # seconds that one input may take
MEMORY = 2 << 30  # bytes
SHARES = {"pickle": 0.4, "tokenizer": 0.12, "record": 0.4, "gates, controls and manifest": 0.3, "page": 0.2}
"""Of the others' number, for what takes longer."""


def fuzz(targets: dict[str, Target], count: int, *, seed: int, scratch: Path) -> tuple[Counter[str], list[str]]:
    """Ask each target `count` times, or its share of that; (how often each outcome was had, the faults).

    Each has a folder of its own in `scratch`, in which one file is odd at a time.
    """
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    for name, target in targets.items():
        for number in range(max(1, round(count * SHARES.get(name, 1.0)))):
            outcome, told = _asked(target, random.Random(f"{seed} {name} {number}"), scratch / name)
            outcomes[outcome] += 1
            if told:
                faults.append(f"{name}, seed {seed}, number {number}: {told}")
    return outcomes, faults


def _asked(target: Target, draw: random.Random, folder: Path) -> tuple[str, str]:
    """(outcome, what is wrong with it)."""
    start = time.monotonic()
    signal.alarm(LONGEST)
    try:
        target(folder, draw)
        outcome, told = "read", ""
    except InputError as error:
        plain = str(error).isprintable() and "\n" not in str(error)
        outcome, told = "refused", "" if plain else f"a message of more than one line: {error!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a library's own is none of Exception
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome, told = "fault", f"{type(error).__name__}: {str(error)[:200]!r} at {where.filename}:{where.lineno}"
    finally:
        signal.alarm(0)
    took = time.monotonic() - start
    return outcome, told or (f"took {took:.0f} s" if took > LONGEST else "")


def _alarm(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {LONGEST} s")


def main() -> int:
    from tests.fuzz.targets import models, results
    from tests.tiny import tiny_checkpoint

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="inputs of each kind, fewer where they take long")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _alarm)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = tiny_checkpoint(scratch / "tiny")
        targets = models(model, scratch) | results(_measured(model, scratch))
        start = time.monotonic()
        outcomes, faults = fuzz(targets, arguments.count, seed=arguments.seed, scratch=scratch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak > MEMORY:
        faults.append(f"memory: {peak / 1e9:.1f} GB at most, {MEMORY / 1e9:.1f} are allowed")
    told = ", ".join(f"{number:,} {word}" for word, number in sorted(outcomes.items()))
    print(f"{outcomes.total():,} inputs in {time.monotonic() - start:.0f} s, {peak / 1e9:.1f} GB: {told}")
    for fault in faults:
        print(f"  {fault}")
    return int(bool(faults))


def _measured(model: Path, out: Path) -> Path:
    from checks import cli

    code = cli.main(["run", str(model), "--out", str(out / "out"), "--device", "cpu", "--quiet"])
    assert code in (0, 1), code
    return out / "out" / model.name


if __name__ == "__main__":
    sys.exit(main())
