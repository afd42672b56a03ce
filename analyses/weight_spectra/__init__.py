"""Tails of the spectra of weight matrices, stored and folded."""

from analyses.weight_spectra.analysis import analyse as analyse
from analyses.weight_spectra.analysis import measure as measure
