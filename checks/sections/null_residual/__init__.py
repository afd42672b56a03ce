"""Section of null_residual."""

from checks.sections.null_residual.section import SECTION as SECTION
