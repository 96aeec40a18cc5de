"""One paper, one file: drop a file into a family's folder and it is a method.

`atelier.methods` is this package and also the public function that lists the methods: importing the
package puts it in the function's place, so it can be called as well.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self) -> Mapping[str, Any]:
        """Every method by name, in alphabetical order."""
        from atelier.core.registry import methods

        return methods()


sys.modules[__name__].__class__ = _Callable
