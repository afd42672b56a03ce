"""Tables of one model's result: a row is a head, plane, layer, pair of layers, write or claim, a column a variable."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyses.errors import InputError
from checks.tables.quantities import KEYS, TABLES

NAMES = (*TABLES, "claims")
Cell = str | float | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of equal length under named columns."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def column(self, name: str) -> list[Cell]:
        """One column; raises InputError for a name that is not there."""
        if name not in self.columns:
            raise InputError(f"the table '{self.name}' has no column '{name}' (there are: {', '.join(self.columns)})")
        at = self.columns.index(name)
        return [row[at] for row in self.rows]


def table(name: str, found: Mapping[str, Mapping[str, Any]], judged: Mapping[str, Any]) -> Table:
    """One of NAMES.

    Parameters
    ----------
    found : analysis → its record, as read from disk.
    judged : the content of `gates.json`.

    Raises
    ------
    InputError : for a name that is none, or where no record holds anything of it.
    """
    if name not in NAMES:
        raise InputError(f"no table '{name}' (there are: {', '.join(NAMES)})")
    model = judged["model"]
    return _claims(model, judged) if name == "claims" else _measured(name, model, found)


def _measured(name: str, model: str, found: Mapping[str, Mapping[str, Any]]) -> Table:
    keys, cells, columns = KEYS[name], {}, {}
    along: dict[tuple[str, ...], dict[tuple, dict[str, Cell]]] = {}  # keys that a quantity has, where not all → cells
    for quantity in TABLES[name]:
        for place, value in quantity.of(found.get(quantity.analysis, {})):
            place = place | dict(quantity.fixed or {})
            column = quantity.name.format(**place)
            columns[column] = None
            own = tuple(key for key in keys if key in place)
            held = cells if own == keys else along.setdefault(own, {})
            held.setdefault(tuple(place[key] for key in own), {})[column] = value
    for own, held in along.items():
        for row in cells:
            cells[row] |= held.get(tuple(row[keys.index(key)] for key in own), {})
    cells = {row: of for row, of in cells.items() if any(value is not None for value in of.values())}
    if not cells:
        missing = sorted({quantity.analysis for quantity in TABLES[name]} - set(found))
        short = any("shortened" in found.get(quantity.analysis, {}) for quantity in TABLES[name])
        why = "this copy leaves its arrays out; load the folder" if short else "the record holds none"
        why = f"not measured: {', '.join(missing)}" if missing else why
        raise InputError(f"{model}: nothing for the table '{name}' ({why})")
    rows = [(model, *key, *(row.get(column) for column in columns)) for key, row in sorted(cells.items())]
    return Table(name=name, columns=("model", *keys, *columns), rows=rows)


CLAIM = ("id", "row", "kind", "analysis", "claim", "verdict", "verdict_reason", "meets", "p", "p_adjusted")
FINDING = ("path", "quantity", "observed", "comparator", "threshold", "margin", "unit", "where")


def _claims(model: str, judged: Mapping[str, Any]) -> Table:
    """A row for each condition of each claim, of the model and of what is stored."""
    columns = ("model", *CLAIM, "condition", *FINDING, "low", "high")
    rows = []
    for claim in (*judged["claims"], *judged["stored"]):
        for at, finding in enumerate(claim["findings"]):
            ends = finding["interval"] or (None, None)
            rows.append(
                (model, *(claim.get(key) for key in CLAIM), at, *(finding.get(key) for key in FINDING), *ends)
            )
    return Table(name="claims", columns=columns, rows=rows)


def stacked(tables: Sequence[Table]) -> Table:
    """Tables of one name under each other; a column that one of them lacks is null there."""
    columns = tuple(dict.fromkeys(column for one in tables for column in one.columns))
    rows = [tuple(row.get(c) for c in columns) for one in tables for row in _dicts(one)]
    return Table(name=tables[0].name, columns=columns, rows=rows)


def _dicts(one: Table) -> Iterable[dict[str, Cell]]:
    return (dict(zip(one.columns, row, strict=True)) for row in one.rows)
