"""Section of attention_stats."""

from checks.sections.attention_stats.section import SECTION as SECTION
