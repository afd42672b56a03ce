"""Adjacent layers' weight matrices compared entry by entry, with what chance would give."""

from analyses.null_residual.analysis import NullResidual as NullResidual
from analyses.null_residual.analysis import analyse as analyse
from analyses.null_residual.analysis import measure as measure
