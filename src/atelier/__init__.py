"""atelier: image style transfer, every technique behind one call."""
