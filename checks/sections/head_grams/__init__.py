"""Section of head_grams."""

from checks.sections.head_grams.section import SECTION as SECTION
