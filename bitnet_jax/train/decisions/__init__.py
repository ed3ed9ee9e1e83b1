"""Decides the keys that a config leaves to its data."""
