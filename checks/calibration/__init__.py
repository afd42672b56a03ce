"""Simulated coverage of every interval, size and power of every test."""
