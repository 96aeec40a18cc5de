"""Methods without neural networks: brush strokes, filters, patches and colour transfer."""
