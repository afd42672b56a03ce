"""Sections of the page: one folder an analysis, with its figures, its numbers in prose and its limits."""
