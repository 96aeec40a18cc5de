"""Brush strokes: canvas, layers, relaxation and SVG."""
