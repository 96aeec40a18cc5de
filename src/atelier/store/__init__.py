"""Weights: records, the cache, downloads and checkpoint formats; bundled/ holds the files that ship."""
