"""Kinds of tasks: their data, model, loss and metrics."""
