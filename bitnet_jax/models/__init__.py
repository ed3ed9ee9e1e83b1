"""Models: a dataclass of sizes and a Linen module each, with logical axes."""
