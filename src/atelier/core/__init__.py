"""What every other package uses: errors, knobs, progress, recipes, devices, memory, caches."""
