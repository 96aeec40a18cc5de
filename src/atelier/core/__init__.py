"""Foundations of all other packages: errors, knobs, progress, recipes, devices, memory, caches."""
