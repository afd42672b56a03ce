"""Spectra of the heads' metrics, and statistics of the heads' attention on a text, layer by layer."""

from analyses.attention_stats.analysis import AttentionProbe as AttentionProbe
from analyses.attention_stats.analysis import analyse as analyse
from analyses.attention_stats.analysis import measure as measure
from analyses.attention_stats.analysis import probe as probe
