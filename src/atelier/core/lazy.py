"""torch for files that must be listed quickly: loaded when one of its names is first used.

Method files are read by every `--help`; importing torch there would cost seconds. They write
`from atelier.core.lazy import torch` and use it as ever (in annotations too, which stay text).
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
