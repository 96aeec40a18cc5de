"""Baselines for comparison: the photo itself and the style itself."""
