"""Are the head metrics g = W_kᵀ W_q of different layers related, and what shape are they?"""

from analyses.head_grams.analysis import MIXED as MIXED
from analyses.head_grams.analysis import analyse as analyse
from analyses.head_grams.analysis import measure as measure
from analyses.head_grams.analysis import measure_heads as measure_heads
from analyses.head_grams.analysis import reader as reader
