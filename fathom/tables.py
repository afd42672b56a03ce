"""Tables that pandas, polars and Arrow take, where they are installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses.errors import InputError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from checks.tables import tables


class Table:
    """A tidy table: a row is one head, rotary plane, layer, pair of layers, write or claim, a column one variable.

    A number that could not be measured is None, and null in every format.

    >>> from checks.tables import tables
    >>> table = Table(tables.Table(name="heads", columns=("layer", "entropy"), rows=[(0, 1.5), (1, None)]))
    >>> len(table), table["entropy"], table.rows()[1]
    (2, [1.5, None], {'layer': 1, 'entropy': None})
    >>> table.to_arrow().column("entropy").null_count
    1
    """

    def __init__(self, table: tables.Table):
        self._table = table

    @property
    def name(self) -> str:
        return self._table.name

    @property
    def columns(self) -> tuple[str, ...]:
        return self._table.columns

    def __len__(self) -> int:
        return len(self._table.rows)

    def __getitem__(self, column: str) -> list[Any]:
        """One column; raises InputError, with the names there are, for one that is not there."""
        return self._table.column(column)

    def rows(self) -> list[Mapping[str, Any]]:
        """Every row as column → value."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._table.rows]

    def to_pandas(self) -> pandas.DataFrame:
        """As a `pandas.DataFrame`; raises InputError where pandas is not installed."""
        return _library("pandas").DataFrame.from_records(self._table.rows, columns=list(self.columns))

    def to_polars(self) -> polars.DataFrame:
        """As a `polars.DataFrame`; raises InputError where polars is not installed."""
        rows, columns = self._table.rows, self.columns
        return _library("polars").DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)

    def to_arrow(self) -> pyarrow.Table:
        """As a `pyarrow.Table`."""
        from checks.tables.files import as_arrow

        return as_arrow(self._table)

    def save(self, path: str | Path) -> None:
        """As .csv or .parquet, by the suffix of `path`; raises InputError for another."""
        from checks.tables import files

        if Path(path).suffix[1:] not in files.FORMATS:
            raise InputError(f"{path}: a table is saved as .csv or .parquet")
        files.write(self._table, Path(path))

    def __repr__(self) -> str:
        return f"<Table {self.name}: {len(self)} rows of {', '.join(self.columns)}>"


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"{name} is not installed; pip install {name}, or 'fathom-geometry[notebook]'") from None
