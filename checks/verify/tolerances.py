"""How far a number may move when nothing that matters has changed: measured, per number and precision.

The model is measured again with another number of threads, another attention implementation, in the
next higher precision (what a forward pass in this one loses to rounding), on a GPU where there is one,
and with weights moved in their last bits (what another order of summation can do to float64). Each
number keeps the largest movement that it showed. A tolerance is a small multiple of that, since four
or five draws do not show the worst case; never less than rounding itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from analyses import records
from checks.claims import INTEGRITY
from checks.machine.threads import threads
from checks.verify.differences import Tolerance, compare

FILE = "tolerances.json"
SAFETY = 8  # times the largest movement of a handful of draws
FLOOR = 1e-12  # relative; below it float64 sums of a million terms may differ in any order of summation
BOUND = {"float64": 1e-9, "float32": 1e-4, "float16": 0.05, "bfloat16": 0.1}
"""Relative, for a number of which no movement was measured: some 10³ units in the last place of what it was
made of, with float64 allowed for square roots of what cancels."""
COUNTS = 0.005  # of a permutation's p-value: some ties in a thousand draws that rounding may turn
LAST_BITS = 2.0**-48  # relative; sixteen units in the last place of float64
PASS_BITS = {"float32": 2.0**-24, "bfloat16": 2.0**-9, "float16": 2.0**-12}  # half a unit in the last place
DRAWS = 2  # of these
PRECISER = {"bfloat16": "float32", "float16": "float32", "float32": "float64"}

_P_VALUE = re.compile(r"(^|[._])p([._]|$)")
_LIMITS = {
    condition.path: condition.threshold
    for gate in INTEGRITY
    for condition in gate.conditions
}  # fmt: skip

Entry = dict[str, Any]
"""Of one quantity: `moved` (at most), `scale` (its largest magnitude), `by` (the perturbation), and `unstable` where a
choice hangs on rounding."""


# --- measuring ----------------------------------------------------------------------------------


def measure_tolerances(
    source: str, settings: Any, *, dtypes: tuple[str, ...], say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The content of `tolerances.json`: dtype → analysis → quantity → Entry.

    Weight analyses stand under float64, whatever the forward pass ran in.
    """
    from analyses.forward.calibration import load_calibration
    from analyses.run.measure import resolve
    from analyses.run.suite import records_of
    from analyses.weights.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(source, stack=settings.stack)
    text = load_calibration(settings.calibration, tokens=settings.tokens)
    found: dict[str, dict[str, dict[str, Entry]]] = {}
    for dtype in dtypes:
        base_settings = resolve(replace(settings, dtype=dtype), checkpoint)
        base = records_of(checkpoint, text, base_settings, base_settings.only)
        for name, other in _perturbed(checkpoint, text, base_settings):
            say(f"{checkpoint.name}: tolerances in {dtype}: {name}")
            for analysis, record in other.items():
                if "skipped" not in record:
                    part = found.setdefault(_precision(analysis, dtype), {}).setdefault(analysis, {})
                    _note(part, base[analysis], record, name)
    return {
        "schema_version": records.SCHEMA_VERSION,
        "model": checkpoint.name,
        "tensors": checkpoint.examine()[1],
        "safety": SAFETY,
        "dtypes": found,
    }


def _perturbed(checkpoint: Any, text: Any, settings: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import torch

    from analyses import registry
    from analyses.run.suite import records_of
    from checks.twins.roles import Role
    from checks.twins.twins import Twin, TwinCheckpoint

    def last_bits(
        twin: TwinCheckpoint, role: Role, value: torch.Tensor, size: float = LAST_BITS
    ) -> torch.Tensor:
        draw = torch.rand(value.shape, generator=twin.draw(role.part, role.layer, role.bias), dtype=torch.float64)
        return value.double() * (1 + size * (2 * draw - 1))

    reading = tuple(n for n in settings.only if registry.reads_text(n))
    with threads(1 if torch.get_num_threads() > 1 else 2) as count:
        yield f"{count} threads", records_of(checkpoint, text, settings, settings.only)
    twin = Twin(name="last bits", preserves="all but the last bits", destroys="the last bits", change=last_bits)
    if not twin.undefined(checkpoint):
        moved = twin.apply(checkpoint, settings.seed)
        yield "last bits of the weights", records_of(moved, text, settings, settings.only)
    if reading:
        other = "eager" if settings.attention == "sdpa" else "sdpa"
        yield f"{other} attention", records_of(checkpoint, text, replace(settings, attention=other), reading)
        if preciser := PRECISER.get(settings.dtype):
            yield preciser, records_of(checkpoint, text, replace(settings, dtype=preciser), reading)
        if eps := PASS_BITS.get(settings.dtype):
            # What another order of summation does to a pass: its weights moved by half a unit of its own precision.
            rounded = replace(twin, change=partial(last_bits, size=eps))
            for draw in range(DRAWS) if not twin.undefined(checkpoint) else ():
                moved = rounded.apply(checkpoint, settings.seed + draw + 1)
                yield f"last bits of {settings.dtype}", records_of(moved, text, settings, reading)
    if settings.device == "cpu" and torch.cuda.is_available():
        yield "on a GPU", records_of(checkpoint, text, replace(settings, device="cuda"), settings.only)


def _note(entries: dict[str, Entry], base: Mapping[str, Any], other: Mapping[str, Any], name: str) -> None:
    """Add to each pattern's entry what this perturbation moved."""
    sizes = scales(base)
    for leaf in compare(base, other, lambda pattern: Tolerance(size=0.0, source="")):
        name_of = quantity(leaf.path)
        if leaf.moved is None and leaf.status in ("identical", "missing"):
            continue
        entry = entries.setdefault(name_of, {"moved": 0.0, "scale": _upwards(sizes.get(name_of, 0.0)), "by": name})
        if leaf.moved is None:
            entry["unstable"] = True
        elif leaf.moved > entry["moved"]:
            entry |= {"moved": _upwards(leaf.moved), "by": name}


def _upwards(value: float) -> float:
    """Two digits, never less than the value: tolerances are no measurements to be read to the last digit."""
    return float(f"{value * 1.01:.1e}") if value else 0.0


# --- looking up ---------------------------------------------------------------------------------


def tolerance_of(
    measured: Mapping[str, Any], analysis: str, recorded: Mapping[str, Any], *, same_model: bool
) -> Callable[[str], Tolerance]:
    """The tolerance of each leaf of a record, by pattern.

    Parameters
    ----------
    measured : the content of `tolerances.json`, or {} where there is none.
    recorded : the record whose numbers are to come out again.
    same_model : whether the movements were measured on these very weights; they count relatively to the
        size of the numbers otherwise.
    """
    dtype = recorded["key"]["dtype"]
    entries = measured.get("dtypes", {}).get(dtype, {}).get(analysis, {})
    sizes = scales(recorded)

    def tolerance(pattern: str) -> Tolerance:
        name = quantity(pattern)
        scale = sizes.get(name, 0.0)
        if name.startswith("identities.") and name.endswith(".where"):
            return Tolerance(size=0.0, source="which case of an identity is worst, rounding decides", unstable=True)
        if (limit := _limit(analysis, pattern, dtype)) is not None:
            return Tolerance(size=limit, source="the limit of its identity's gate")
        least = COUNTS if _P_VALUE.search(name) else 0.0
        if (entry := entries.get(name)) is None:
            bound = max(least, rounding(dtype, scale))
            told = f"no movement was measured: {BOUND[dtype]:g} of its size"
            return Tolerance(size=bound, source=told, known=False)
        moved = entry["moved"] if same_model or not entry["scale"] else entry["moved"] / entry["scale"] * scale
        source = f"{measured['safety']} times its movement by {entry['by']}"
        size = max(least, measured["safety"] * moved, FLOOR * scale)
        return Tolerance(size=size, source=source, unstable=entry.get("unstable", False))

    return tolerance


def widest(of: Sequence[Callable[[str], Tolerance]]) -> Callable[[str], Tolerance]:
    """Of several tolerances of a leaf the largest that was measured; where none was, the bound by rounding."""

    def tolerance(pattern: str) -> Tolerance:
        every = [given(pattern) for given in of]
        found = [one for one in every if one.known] or every
        largest = max(found, key=lambda one: one.size)
        return replace(largest, unstable=any(one.unstable for one in found))

    return tolerance


def rounding(dtype: str, scale: float) -> float:
    """How far rounding may move a number of this size of which no movement was measured."""
    return BOUND.get(dtype, BOUND["float32"]) * scale


def quantity(path: str) -> str:
    """What a leaf is a value of: a metric's own part, or the first and the last name of a path into an array.

    >>> quantity("metrics.best_abs_r.interval.0"), quantity("pair_results.3.families.q_proj.cos")
    ('metrics.best_abs_r.interval', 'pair_results.cos')
    """
    names = [part for part in path.split(".") if part != "*" and not part.isdecimal()]
    if names[0] in ("metrics", "identities"):
        return ".".join(names)
    return names[0] if len(names) == 1 else f"{names[0]}.{names[-1]}"


def scales(record: Mapping[str, Any]) -> dict[str, float]:
    """Largest magnitude of each quantity; metrics are numbers of order one, and count as at least 1."""
    sizes: dict[str, float] = {}
    for leaf in compare(record, record, lambda pattern: Tolerance(size=0.0, source="")):
        if leaf.moved is not None:
            name = quantity(leaf.path)
            sizes[name] = max(sizes.get(name, 1.0 if name.startswith("metrics.") else 0.0), abs(leaf.recorded))
    return sizes


def read_tolerances(*folders: Path) -> dict[str, Any]:
    """The first `tolerances.json` among these folders; {} where there is none."""
    path = next((folder / FILE for folder in folders if (folder / FILE).exists()), None)
    return records.read_json(path) if path else {}


def _limit(analysis: str, pattern: str, dtype: str) -> float | None:
    section, _, rest = pattern.partition(".")
    if section != "identities" or not rest.endswith(".value"):
        return None
    limit = _LIMITS.get(f"{analysis}.identities.{rest.removesuffix('.value')}")
    return limit[dtype] if isinstance(limit, Mapping) else limit


def _precision(analysis: str, dtype: str) -> str:
    from analyses import registry

    return dtype if registry.reads_text(analysis) else "float64"
