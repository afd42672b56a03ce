"""The analyses there are, one row each; everything that runs, judges or shows an analysis reads its row.

An analysis `x` has four places, named after it: `analyses.x` measures it, `checks.claims.x` holds its gates,
`checks.sections.x` is its section of the page, and `templates/x.html` that section's prose. To add one is to write
these and one row here.
"""

import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.shapes import Shape, shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """One row."""

    name: str
    version: int  # raised when its numbers change their meaning: two versions are no longer compared
    reads: tuple[str, ...] = ()  # analyses whose records it reads, beside or in place of the checkpoint
    forward: bool = False  # whether it needs a forward pass; `analyses.<name>` then has a `probe`
    from_heads: bool = False  # whether it is made of every head's W_q and W_k, so that leaving these out leaves nothing
    by_family: bool = False  # whether it can be restricted to some families of weights

    def measure(self) -> Any:
        """Its function of `analyses.forward.inputs.Inputs`, which gives (record, arrays)."""
        return pkgutil.resolve_name(f"analyses.{self.name}:analyse")

    def probe(self) -> Any:
        """Its function of a checkpoint, which gives the probe that a forward pass feeds."""
        return pkgutil.resolve_name(f"analyses.{self.name}:probe")

    def shape(self) -> Shape:
        """The shape of its record, from the source of the record's class."""
        return shape(*self.record)

    @property
    def record(self) -> tuple[str, str]:
        """Module and name of its record's class: `WriteSize` of `write_size`, in a room of its own or in one file."""
        room = (Path(__file__).parent / self.name).is_dir()
        return f"analyses.{self.name}" + (".analysis" if room else ""), self.name.title().replace("_", "")

    def gates(self) -> Any:
        """Its module of gates, with `INTEGRITY` and `CLAIMS`."""
        return pkgutil.resolve_name(f"checks.claims.{self.name}")

    def section(self) -> Any:
        """Its section of the page."""
        return pkgutil.resolve_name(f"checks.sections.{self.name}:SECTION")


ROWS = (
    Analysis(name="null_residual", version=1, by_family=True),
    Analysis(name="schedule_fit", version=1, reads=("null_residual", "attention_stats", "delta_svd")),
    Analysis(name="head_grams", version=1, from_heads=True),
    Analysis(name="attention_stats", version=1, forward=True, from_heads=True),
    Analysis(name="head_geometry", version=1, reads=("attention_stats",)),
    Analysis(name="delta_svd", version=1, forward=True),
    Analysis(name="weight_spectra", version=1),
    Analysis(name="residual_stream", version=1, reads=("attention_stats",), forward=True),
)
"""In the order of the page."""

_BY_NAME = {row.name: row for row in ROWS}

NAMES = tuple(row.name for row in sorted(ROWS, key=lambda row: bool(row.reads)))
"""In the order in which they can run: an analysis that reads records comes after those that read the checkpoint."""

FORWARD = frozenset(row.name for row in ROWS if row.forward)
"""Those that need a forward pass themselves."""


def sections() -> tuple[Any, ...]:
    """The sections of the page, in its order."""
    return tuple(row.section() for row in ROWS)


def row(name: str) -> Analysis:
    """The row of an analysis; raises KeyError where there is none."""
    return _BY_NAME[name]


def reads(name: str) -> tuple[str, ...]:
    """The analyses whose records this one reads."""
    return _BY_NAME[name].reads


def with_read(names: Iterable[str]) -> tuple[str, ...]:
    """These analyses and those that they read, in the order in which they run."""
    wanted = {other for name in names for other in (name, *reads(name))}
    return tuple(name for name in NAMES if name in wanted)


def reads_text(name: str) -> bool:
    """Whether a calibration text determines its numbers: it needs a forward pass, or reads a record that did."""
    return bool(FORWARD & {name, *reads(name)})
