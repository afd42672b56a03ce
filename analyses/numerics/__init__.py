"""Spectra, sums over blocks, Lanczos quadrature and intervals: what several analyses compute with."""
