"""What runs on CPUs in place of XLA's own products, and from which sizes on."""
