"""Methods that paint in one pass through a network."""
