"""Pictures: files, tensors, sizes, colour and regions. Independent of networks and methods."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
