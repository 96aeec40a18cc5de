"""Published networks that work together, such as Stable Diffusion: read, planned for memory, and changed."""
