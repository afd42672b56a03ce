"""How alike are adjacent layers, and what would chance give?"""

from analyses.null_residual.analysis import NullResidual as NullResidual
from analyses.null_residual.analysis import analyse as analyse
from analyses.null_residual.analysis import measure as measure
