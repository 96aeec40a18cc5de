"""One paper, one file: a file in a family's folder is a method."""
