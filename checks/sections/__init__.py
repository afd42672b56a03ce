"""All sections of the page, in its order."""

from checks.sections import attention_stats, delta_svd, head_geometry, head_grams, null_residual, schedule_fit

SECTIONS = (
    null_residual.SECTION,
    schedule_fit.SECTION,
    head_grams.SECTION,
    attention_stats.SECTION,
    head_geometry.SECTION,
    delta_svd.SECTION,
)
