"""What programs do with trained models."""
