"""Losses that compare an image with its content and its style. A perfect match has loss 0."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
