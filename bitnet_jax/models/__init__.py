"""Models: one size class and one top module each, with their logical axes."""
