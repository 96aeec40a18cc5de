"""Compiled loops over pixels: numba behind one typed decorator.

Only modules with kernels import this file, so listing methods never loads numba. Kernels take C-contiguous
float32 arrays and plain numbers, release the GIL, and are compiled once per machine; `compiled_cache` stores
the code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import torch

from atelier.maths import compiled_cache

Floats = npt.NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

# Reordering sums allows loops to be vectorised. NaN and infinity are still handled correctly.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


def kernel(function: Function) -> Function:
    """`function`, compiled on its first call."""
    compiled = numba.njit(nogil=True, fastmath=_FAST, error_model="numpy")(function)
    compiled_cache.keep(compiled)
    return cast(Function, compiled)


def in_bands(function: Callable[..., None], height: int, *arguments: Any) -> None:
    """Calls `function(*arguments, top, bottom)` for bands of rows that cover `height`, one per torch thread.

    The result for a row must not depend on its band, so that it is the same for any number of threads.
    """
    bands = max(1, min(torch.get_num_threads(), height // 16))
    edges = [height * index // bands for index in range(bands + 1)]
    if bands == 1:
        function(*arguments, 0, height)
        return
    with ThreadPoolExecutor(bands) as pool:
        for done in [pool.submit(function, *arguments, a, b) for a, b in itertools.pairwise(edges)]:
            done.result()


def floats(array: Any) -> Floats:
    """The array in the form that kernels take: float32, C-contiguous."""
    return np.ascontiguousarray(array, dtype=np.float32)
