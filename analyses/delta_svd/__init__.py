"""What each layer adds to the residual stream: sizes, spectra and directions, and phases of depth."""

from analyses.delta_svd.analysis import DeltaProbe as DeltaProbe
from analyses.delta_svd.analysis import analyse as analyse
from analyses.delta_svd.analysis import measure as measure
from analyses.delta_svd.analysis import probe as probe
from analyses.delta_svd.analysis import trend as trend
