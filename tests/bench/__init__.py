"""Benchmarks: ratios of what is compared in alternating runs. ``make bench`` prints the table."""
