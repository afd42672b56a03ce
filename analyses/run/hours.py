"""Hours that a measurement takes, from the kinds of its work and the rates at which machines do them.

The rates of one core are measured (`CORE`), in processor seconds on two cores of an AMD EPYC that others used as well;
what a kind of work costs beside a rate, as reading an entry a number of times, was measured there too. Products and
factorisations go to all cores; a pass over entries is one thread's (`numerics.blockwise`). A machine whose rates
`make bench` or `make gpu-check` has measured is planned for with these: `fathom plan --rates build/bench.json`. Nothing
is assumed of a machine that was not measured but that more cores of this kind do products faster in proportion.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.run.costs import Cost

if TYPE_CHECKING:
    from analyses.run.plan import Plan

CORE = {
    "float32 products": 99e9,  # operations a second, of square products
    "float64 products": 49e9,
    "products of few vectors": 45e9,  # 16 float32 rows with a matrix
    "products of heads": 47e9,  # head metrics formed in float32, tile by tile, and multiplied with one another
    "factorisations": 17e9,  # QR of 16 matrices of 1,024 × 128 (14.5), its reflections applied to as many (24), float64
    "small spectra": 9.5e9,  # SVD and eigenvalues of side 128 and 256, float64
    "eigenvalues": 20e9,  # of side 1,024, float64
    "entries": 1e9,  # passes over an entry
    "new pages": 1.9e9,  # bytes of arrays that the C library takes from the system and gives back, each time anew
}
START = 3.5  # seconds: the imports, and the keys of records
CHECKED = 3.2e-9  # seconds a byte: read, hashed twice, and searched for NaN
ONE_THREAD = ("entries", "new pages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Rates by kind of work, operations a second, of all that it computes with."""

    name: str
    rates: Mapping[str, float]


def of_cores(count: int) -> Machine:
    """So many cores as the measured one."""
    rates = {kind: rate * (1 if kind in ONE_THREAD else count) for kind, rate in CORE.items()}
    return Machine(name=f"{count} core{'s' * (count > 1)}", rates=rates)


def measured(bench: Mapping[str, float], *, name: str) -> Machine:
    """A machine by the rates of its bench, where it has them; what the bench does not measure is as on two cores."""
    known = of_cores(2).rates
    float32, float64 = bench["float32_products"], bench["float64_products"]
    scale = dict.fromkeys(("products of few vectors", "products of heads"), float32 / known["float32 products"])
    rates = {kind: rate * scale.get(kind, 1.0) for kind, rate in known.items()}
    spectra = bench.get("float64_eigenvalues", known["small spectra"])
    rates |= {"float32 products": float32, "float64 products": float64, "small spectra": spectra}
    rates["eigenvalues"] = max(spectra, known["eigenvalues"])
    if "device_memory" in bench:
        rates["entries"] = bench["device_memory"] / 8  # bytes of an entry in float64
    return Machine(name=name, rates=rates)


def seconds(cost: Cost, machine: Machine) -> float | None:
    """Of one analysis, without the start and the checking of files; None where its work is not known by kind."""
    return sum(amount / machine.rates[kind] for kind, amount in cost.work.items()) if cost.work else None


def times(plan: "Plan", machine: Machine) -> dict[str, float]:
    """Analysis → seconds of a run of it alone, start and checking of files included; those whose work is known."""
    beside = START + CHECKED * plan.weight_bytes
    found = {name: seconds(cost, machine) for name, cost in plan.costs.items() if name not in plan.skipped}
    return {name: beside + spent for name, spent in found.items() if spent is not None}


PLANNED = (of_cores(2), of_cores(64))
UNMEASURED = "an H100, as any machine, by its own ceilings: --rates with the file that make gpu-check leaves there"
