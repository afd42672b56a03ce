"""Section of delta_svd."""

from checks.sections.delta_svd.section import SECTION as SECTION
