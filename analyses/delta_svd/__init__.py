"""What does a layer write into the residual stream?"""

from analyses.delta_svd.analysis import DeltaProbe as DeltaProbe
from analyses.delta_svd.analysis import analyse as analyse
from analyses.delta_svd.analysis import measure as measure
from analyses.delta_svd.analysis import probe as probe
from analyses.delta_svd.analysis import trend as trend
