"""Measures of a result beside its content and its style: one file a metric, all called alike."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
