"""Meshes, processes and compilation."""
