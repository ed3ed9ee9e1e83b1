"""TPU implementations of products, and the sizes they are for."""
