"""Fathom as a library: measure a checkpoint, read a result, take its numbers as tables.

    result = fathom.measure("path/to/checkpoint")    # or fathom.load("build/my-model"), a page, an address
    result.claims.verdicts()                         # claim id → its word
    result.record("head_grams").singvals             # (layer, head, mode), as the analysis made it
    result.table("heads").to_pandas()                # a row a head
    fathom.family("HE2", [result, other])            # one claim over models, as a table and as a drawing

Nothing heavy is imported before it is needed, and nothing is kept between calls.
"""

from checks import __version__
from fathom.family import Family, family
from fathom.measuring import measure
from fathom.results import Claims, Result, load
from fathom.tables import Table

__all__ = ["Claims", "Family", "Result", "Table", "__version__", "family", "load", "measure"]
