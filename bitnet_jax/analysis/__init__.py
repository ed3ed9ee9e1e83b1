"""What can be said of programs and runs without running them."""
