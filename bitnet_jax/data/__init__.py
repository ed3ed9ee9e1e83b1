"""Where examples come from: data sources, image transforms and batches."""
