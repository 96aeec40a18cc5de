"""The training loop shared by all networks, with its checkpoints and data."""
