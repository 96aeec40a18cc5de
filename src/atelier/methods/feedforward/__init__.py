"""Methods that stylise in one pass through a network."""
