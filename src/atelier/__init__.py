"""atelier: image style transfer, every technique behind one call.

>>> import atelier
>>> "gatys" in atelier.list_methods()
True
"""

import lazy_loader as _lazy

from atelier.store import records as _records

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)


def _records_of_methods() -> None:
    from atelier.methods.registry import list_methods

    list_methods()


_records.discoverers.append(_records_of_methods)  # the store is below the methods, so it is told of them here
