"""Readers of files that others wrote, given damaged and hostile ones.

``python -m tests.fuzz --mutations=2000`` tries each reader so often, and prints
what came of it; ``--reader=NAME`` tries one.
"""
