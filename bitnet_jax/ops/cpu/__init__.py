"""CPU implementations of products and norms, and the sizes they are for."""
