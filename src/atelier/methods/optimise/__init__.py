"""Methods that iterate on the image itself."""
