"""Does a gain, or a temperature, follow a schedule over depth?"""

from analyses.schedule_fit.analysis import GAIN as GAIN
from analyses.schedule_fit.analysis import ScheduleFit as ScheduleFit
from analyses.schedule_fit.analysis import analyse as analyse
from analyses.schedule_fit.analysis import measure as measure
from analyses.schedule_fit.analysis import rate as rate
