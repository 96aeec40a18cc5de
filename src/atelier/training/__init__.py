"""One loop for every trainer, its checkpoints and its data."""
