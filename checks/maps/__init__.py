"""Exact changes of coordinates: other parameters, the same function."""
