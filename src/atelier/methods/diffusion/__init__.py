"""Diffusion: networks that turn noise into pictures step by step, and methods that guide them."""
