"""Section of schedule_fit."""

from checks.sections.schedule_fit.section import SECTION as SECTION
