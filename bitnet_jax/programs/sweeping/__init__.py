"""Sweeps: a run for each combination of values of config keys."""
