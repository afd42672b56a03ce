"""One claim over many results: a table, and a drawing against parameters or training steps."""

from __future__ import annotations

from collections.abc import Iterable

from fathom.results import Result
from fathom.tables import Table


class Family:
    """A claim's numbers over several models, all of one condition; a notebook shows the drawing."""

    def __init__(self, claim: str, results: Iterable[Result]):
        from checks.tables.across import family

        self._table = family(claim, [result._judged for result in results])

    @property
    def table(self) -> Table:
        """A row a result: model, step, parameters, number, interval, limit, verdict."""
        return Table(self._table)

    def figure(self, *, against: str | None = None, width: int = 180) -> str:
        """An SVG drawing, 85 or 180 mm wide.

        Parameters
        ----------
        against : "parameters" or "step"; steps where every model has one and they differ, unless given.

        Raises
        ------
        InputError : where fewer than two models have a number, or one of them has no place on the axis.
        """
        from checks.figures.family import figure
        from checks.report.drawings import svg

        return svg(figure(self._table, against=against), width)

    def _repr_svg_(self) -> str:
        return self.figure()

    def __repr__(self) -> str:
        return f"<Family {self._table.name}: {len(self._table.rows)} results>"


def family(claim: str, results: Iterable[Result]) -> Family:
    """One claim over several results.

    Parameters
    ----------
    claim : its id, as "HE2". results : of `load` or `measure`, judged by one set of claims.

    Raises
    ------
    InputError : where no result has this claim, or they were judged by several sets.

    >>> family("HE2", [])
    Traceback (most recent call last):
    analyses.errors.InputError: no claim 'HE2' in these results (there are: none)
    """
    return Family(claim, results)
