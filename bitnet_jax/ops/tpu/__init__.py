"""What runs on TPUs in place of XLA's own products, and from which sizes on."""
