"""Pretrained weights: records, downloads, checkpoint formats, installation and caches.

The folder `bundled` holds the weights that ship with the package.
"""
