"""Weights: records, downloads, checkpoint formats, installation, the cache of styles; bundled/ is shipped."""
