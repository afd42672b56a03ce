"""Figures as plain geometry: axes, charts, heatmaps and strips, without a template."""
