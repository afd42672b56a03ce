"""All sections of the page, in its order."""

from checks.sections.attention_stats import section as attention_stats
from checks.sections.delta_svd import section as delta_svd
from checks.sections.head_geometry import section as head_geometry
from checks.sections.head_grams import section as head_grams
from checks.sections.null_residual import section as null_residual
from checks.sections.schedule_fit import section as schedule_fit

SECTIONS = (
    null_residual.SECTION,
    schedule_fit.SECTION,
    head_grams.SECTION,
    attention_stats.SECTION,
    head_geometry.SECTION,
    delta_svd.SECTION,
)
