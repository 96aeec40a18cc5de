"""The square root of a symmetric positive semi-definite matrix, with a gradient that stays finite."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def sqrtm(matrix: Tensor) -> Tensor:
    """The symmetric R with R R = `matrix` (..., N, N), symmetric and positive semi-definite.

    Only the symmetric part counts, and negative eigenvalues, which rounding makes, count as zero. The
    gradient solves R dR + dR R = dA in the eigenbasis, which repeated eigenvalues do not disturb; along
    directions that the matrix lacks altogether, where the root has no derivative, it is zero.

    >>> sqrtm(torch.diag(torch.tensor([4.0, 9.0, 0.0]))).diagonal().tolist()
    [2.0, 3.0, 0.0]
    """
    root: Tensor = _Root.apply(matrix)  # type: ignore[no-untyped-call]
    return root


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, matrix: Tensor) -> Tensor:
        values, vectors = one_thread(torch.linalg.eigh, (matrix + matrix.mT) / 2)
        noise = values[..., -1:].abs() * matrix.shape[-1] * torch.finfo(matrix.dtype).eps
        roots = torch.where(values > noise, values, 0.0).sqrt()
        context.save_for_backward(roots, vectors)
        root: Tensor = (vectors * roots[..., None, :]) @ vectors.mT
        return root

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> Tensor:
        roots, vectors = context.saved_tensors
        inner = vectors.mT @ ((gradient + gradient.mT) / 2) @ vectors
        sums = roots[..., :, None] + roots[..., None, :]
        inner = torch.where(sums > 0, inner / torch.where(sums > 0, sums, 1.0), 0.0)
        change: Tensor = vectors @ inner @ vectors.mT
        return change


def one_thread(routine: Callable[[Tensor], tuple[Tensor, Tensor]], matrix: Tensor) -> tuple[Tensor, Tensor]:
    """What a LAPACK routine makes of a matrix, on one CPU thread.

    At a few hundred channels LAPACK's threads gain nothing, and where another process holds a core they
    wait for each other at every column: 3 s instead of 8 ms. Only the calling thread is limited.
    """
    # A Python thread takes over its number of CPU threads at its first question; from then on it has its own.
    threads = torch.get_num_threads()
    limit = _mkl_limit() or torch.set_num_threads
    before = limit(1)
    try:
        return routine(matrix)
    finally:
        limit(threads if before is None else before)


@lru_cache(maxsize=1)
def _mkl_limit() -> Callable[[int], int | None] | None:
    """MKL's own limit for the calling thread, which returns the one before; None for torch without MKL.

    `torch.set_num_threads` sets the same, but also what threads that start meanwhile take over.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        limit: Callable[[int], int] = ctypes.CDLL(str(library)).MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return None
    return limit
