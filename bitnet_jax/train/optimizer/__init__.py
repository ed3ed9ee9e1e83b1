"""Optimizers, schedules and lengths of runs."""
