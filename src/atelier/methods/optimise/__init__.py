"""Methods that optimise the image itself."""
