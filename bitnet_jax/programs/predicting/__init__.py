"""Predictions of trained models for new inputs, without the training data."""
