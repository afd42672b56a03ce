"""Sizes, spectra and angles of the residual stream's states, layer by layer, and what is claimed of them."""

from analyses.residual_stream.analysis import StreamProbe as StreamProbe
from analyses.residual_stream.analysis import analyse as analyse
from analyses.residual_stream.analysis import measure as measure
from analyses.residual_stream.analysis import probe as probe
