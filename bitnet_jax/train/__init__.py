"""The only training loop there is, and what it is made of."""
