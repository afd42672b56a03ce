"""A result as an object: verdicts, records and tables of one measured model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from analyses.errors import InputError
from fathom.tables import Table

if TYPE_CHECKING:
    from analyses.attention_stats.analysis import AttentionStats
    from analyses.delta_svd.analysis import DeltaSvd
    from analyses.head_geometry.analysis import HeadGeometry
    from analyses.head_grams.analysis import HeadGrams
    from analyses.null_residual.analysis import NullResidual
    from analyses.schedule_fit.analysis import ScheduleFit
    from checks.verify.compare import Pair, Side


def load(source: str | Path) -> Result:
    """A result that was measured before.

    Parameters
    ----------
    source : one model's folder of records, its page (report.html), or the address of such a folder or page on the web.

    Raises
    ------
    InputError : where there is no result, or one of another version or changed since it was written.

    >>> load("nowhere")
    Traceback (most recent call last):
    analyses.errors.InputError: nowhere: no such folder or page; measure it first, with fathom.measure or `fathom run`
    """
    from checks.verify.compare import read_side

    if str(source).startswith(("https://", "http://", "file://")):
        from fathom.web import fetched

        with tempfile.TemporaryDirectory() as folder:
            return _sound(read_side(fetched(str(source), Path(folder))), str(source))
    if not Path(source).exists():
        raise InputError(f"{source}: no such folder or page; measure it first, with fathom.measure or `fathom run`")
    return _sound(read_side(Path(source)), str(source))


def _sound(side: Side, source: str) -> Result:
    """Raise InputError for records of another version, or that no Fathom wrote."""
    from analyses.records import require_record

    for name, record in side.found.items():
        require_record(record, f"{source}: {name}.json")
    return Result(side)


class Result:
    """One model's verdicts and numbers."""

    def __init__(self, side: Side):
        self._side = side

    @property
    def model(self) -> str:
        return self._side.name

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Files by hash, settings, versions, date: what determined the numbers."""
        return self._side.manifest

    @property
    def claims(self) -> Claims:
        """Every claim with its verdict, in the order of the page."""
        return Claims([*self._side.judged["claims"], *self._side.judged["stored"]])

    @property
    def records(self) -> tuple[str, ...]:
        """Names of the analyses that were measured."""
        return tuple(self._side.found)

    @overload
    def record(self, name: Literal["null_residual"]) -> NullResidual: ...
    @overload
    def record(self, name: Literal["schedule_fit"]) -> ScheduleFit: ...
    @overload
    def record(self, name: Literal["head_grams"]) -> HeadGrams: ...
    @overload
    def record(self, name: Literal["attention_stats"]) -> AttentionStats: ...
    @overload
    def record(self, name: Literal["head_geometry"]) -> HeadGeometry: ...
    @overload
    def record(self, name: Literal["delta_svd"]) -> DeltaSvd: ...
    @overload
    def record(self, name: str) -> Any: ...

    def record(self, name: str) -> Any:
        """The numbers of one analysis as its own record, arrays as float64 NumPy arrays with NaN for null.

        The fields, with their shapes and units, are those of its class; `axes` names the axes of each array.

        Raises
        ------
        InputError : where the analysis was not measured, was skipped or failed, or a page left its arrays out.
        """
        from fathom.typed import typed

        if name not in self._side.found:
            raise InputError(f"{self.model}: no record of '{name}' (there are: {', '.join(self.records)})")
        return typed(name, self._side.found[name])

    def axes(self, name: str) -> dict[str, tuple[str, ...]]:
        """Field of a record → names of its array's axes, as ("layer", "head", "head_dim")."""
        from fathom.typed import axes, class_of

        return axes(class_of(name))

    def table(self, name: str) -> Table:
        """One of "heads", "planes", "layers", "pairs", "writes", "claims".

        Raises
        ------
        InputError : for another name, or where no record holds anything of it.
        """
        from checks.tables import tables

        return Table(tables.table(name, self._side.found, self._side.judged))

    def claim(self, id: str) -> Table:
        """One claim's number, interval and word, as a table of one row; tables of several results stack."""
        from checks.tables.across import across

        return Table(across(id, [self._judged]))

    @property
    def _judged(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return self._side.manifest, self._side.judged

    def compare(self, other: Result) -> list[Pair]:
        """What differs between this run and a later one, claim by claim; each with `group` and its reasons."""
        from checks.verify.compare import compare

        return compare(self._side, other._side)

    def figure(self, name: str = "network", *, width: int = 180) -> str:
        """A figure of the page as an SVG drawing, 85 or 180 mm wide; raises InputError for a name that is none."""
        from checks.report.drawings import figures_from, svg

        figures = {figure.id: figure for figure in figures_from(self._side.found)}
        if name not in figures:
            raise InputError(f"{self.model}: no figure '{name}' (there are: {', '.join(figures)})")
        return svg(figures[name], width)

    def _repr_html_(self) -> str:
        from checks.report.notebook import claims_axis

        return claims_axis(self._side.judged)

    def __repr__(self) -> str:
        words: dict[str, int] = {}
        for claim in self._side.judged["claims"]:
            words[claim["verdict"]] = words.get(claim["verdict"], 0) + 1
        return f"<Result {self.model}: {', '.join(f'{n} {word}' for word, n in words.items())}>"


class Claims(Mapping[str, Mapping[str, Any]]):
    """Claims by id, each as it stands in `gates.json`: verdict, findings, p, controls.

    >>> claims = Claims([{"id": "HE2", "verdict": "holds", "claim": "Spectra predict entropy", "findings": []}])
    >>> claims.verdicts(), "HE2" in claims
    ({'HE2': 'holds'}, True)
    >>> claims["HE9"]
    Traceback (most recent call last):
    KeyError: "no claim 'HE9' (there are: HE2)"
    """

    def __init__(self, claims: list[Mapping[str, Any]]):
        self._claims = {claim["id"]: claim for claim in claims}

    def __getitem__(self, id: str) -> Mapping[str, Any]:
        if id not in self._claims:
            raise KeyError(f"no claim '{id}' (there are: {', '.join(self._claims)})")
        return self._claims[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def verdicts(self) -> dict[str, str]:
        """Claim id → its word."""
        return {id: claim["verdict"] for id, claim in self._claims.items()}

    def __repr__(self) -> str:
        return "\n".join(f"{claim['verdict']:<22}{id:<12}{claim['claim']}" for id, claim in self._claims.items())
