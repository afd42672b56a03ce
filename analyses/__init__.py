"""Measure: plain modules from a checkpoint to records on disk. Nothing here imports `checks`."""
