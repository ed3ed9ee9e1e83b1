"""Data: sources, views, batches and tokenizers."""
