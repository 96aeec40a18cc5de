"""Patch search and synthesis: PatchMatch, image analogies, quilting, texture growing."""
