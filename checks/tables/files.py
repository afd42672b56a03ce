"""Tables as CSV and Parquet files."""

import csv
import io
from pathlib import Path
from typing import Any

from analyses.records import write_bytes
from checks.tables.tables import Table

FORMATS = ("csv", "parquet")


def write(table: Table, path: Path) -> None:
    """Write a table whole or not at all; the format is that of the file's suffix, one of FORMATS."""
    write_bytes(path, {".csv": as_csv, ".parquet": as_parquet}[path.suffix](table))


def as_csv(table: Table) -> bytes:
    """RFC 4180 in UTF-8: a null is empty, a number has every digit that tells it from its neighbours."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue().encode()


def as_arrow(table: Table) -> Any:
    """As a `pyarrow.Table`."""
    import pyarrow

    columns = zip(*table.rows, strict=True) if table.rows else ((),) * len(table.columns)
    return pyarrow.table({name: _one_type(values) for name, values in zip(table.columns, columns, strict=True)})


def _one_type(values: tuple) -> list:
    """A column of whole and other numbers is one of floats."""
    floats = any(isinstance(value, float) for value in values)
    return [float(value) if floats and isinstance(value, int) else value for value in values]


def as_parquet(table: Table) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(as_arrow(table), sink)
    return sink.getvalue().to_pybytes()
