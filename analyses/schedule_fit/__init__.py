"""Fits of schedules over depth to the scales of the weights, and of cooling laws to attention temperatures."""

from analyses.schedule_fit.analysis import GAIN as GAIN
from analyses.schedule_fit.analysis import ScheduleFit as ScheduleFit
from analyses.schedule_fit.analysis import analyse as analyse
from analyses.schedule_fit.analysis import measure as measure
from analyses.schedule_fit.analysis import rate as rate
