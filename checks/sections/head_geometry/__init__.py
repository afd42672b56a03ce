"""Section of head_geometry."""

from checks.sections.head_geometry.section import SECTION as SECTION
