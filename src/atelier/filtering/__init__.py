"""Image filters: structure tensor, Kuwahara, XDoG, hatching, stippling, tessellation, noise."""
