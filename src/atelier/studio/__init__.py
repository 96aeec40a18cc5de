"""The studio: a warm server that paints, compares, trains and keeps its results, with an HTTP interface."""
