"""Methods, one file per paper. Each file in a family's folder defines a method."""
