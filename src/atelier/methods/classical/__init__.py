"""Before neural networks: brush strokes, filters and colour, without any weights."""
