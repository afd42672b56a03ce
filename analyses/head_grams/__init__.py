"""Head metrics g = W_kᵀ W_q: their spectra and signs, and their similarity and shared subspaces across layers."""

from analyses.head_grams.analysis import analyse as analyse
from analyses.head_grams.analysis import measure as measure
from analyses.head_grams.analysis import measure_heads as measure_heads
from analyses.head_grams.analysis import reader as reader
from analyses.head_grams.summaries import MIXED as MIXED
