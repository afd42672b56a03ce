"""All gates, in the order of the page: one module per analysis, gates as data."""

from checks.claims import attention_stats, delta_svd, head_geometry, head_grams, null_residual, schedule_fit

MODULES = (null_residual, schedule_fit, head_grams, attention_stats, head_geometry, delta_svd)
INTEGRITY = tuple(gate for module in MODULES for gate in module.INTEGRITY)
CLAIMS = tuple(gate for module in MODULES for gate in module.CLAIMS)
