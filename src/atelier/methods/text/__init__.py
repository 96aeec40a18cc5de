"""Methods that words guide."""
