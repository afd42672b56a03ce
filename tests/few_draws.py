"""Measuring with few draws of every null and interval, which are most of the time on models as small as the tests'."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from analyses.head_geometry import correlation, gained
from analyses.numerics import intervals
from analyses.schedule_fit import two_pieces

FEW = 9


@contextmanager
def few_draws() -> Iterator[None]:
    """For tests that read no p-value, no power and no interval."""
    with pytest.MonkeyPatch.context() as patch:
        for bootstrap in (intervals.bootstrap, intervals.bootstraps):
            patch.setitem(bootstrap.__kwdefaults__, "resamples", FEW)
        patch.setitem(correlation.permutation_null.__kwdefaults__, "count", FEW)
        patch.setitem(gained.within_test.__kwdefaults__, "draws", FEW)
        patch.setitem(gained.drift_test.__kwdefaults__, "draws", FEW)
        patch.setattr("analyses.head_geometry.gained.PLANTS", 1)
        patch.setattr("analyses.residual_stream.sinks.PLANTS", 1)
        patch.setattr("analyses.schedule_fit.chance.DRAWS", FEW)
        patch.setattr("analyses.weight_spectra.power_law.DRAWS", FEW)
        patch.setitem(two_pieces.calibrate.__kwdefaults__, "resamples", FEW)
        yield
