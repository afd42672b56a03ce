"""Pages, and the same results for machines."""
