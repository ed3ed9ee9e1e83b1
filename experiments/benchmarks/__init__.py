"""Suites of benchmark.py, and its timers."""
