"""Measurements with goals, run by hand: `python -m benchmarks list`, `… run NAME`."""
