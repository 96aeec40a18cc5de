"""torch, imported on first use.

`--help` imports all method files, and importing torch there would take seconds. Instead they import it with
`from atelier.core.lazy import torch` and use it as usual; annotations are never evaluated.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self.__name__), name)

    torch = _Lazy("torch")
