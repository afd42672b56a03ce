"""Correlation of the heads' spectra with how they attend."""

from analyses.head_geometry.analysis import analyse as analyse
from analyses.head_geometry.analysis import measure as measure
