"""Judge: gates over records, and the page that shows them."""

__version__ = "0.3.0"
