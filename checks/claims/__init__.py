"""All gates, in the order of the page: one module per analysis, gates as data."""

from analyses.registry import ROWS

INTEGRITY = tuple(gate for row in ROWS for gate in row.gates().INTEGRITY)
CLAIMS = tuple(gate for row in ROWS for gate in row.gates().CLAIMS)
