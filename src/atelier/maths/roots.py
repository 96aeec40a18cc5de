"""Powers of symmetric positive semi-definite matrices, and a square root whose gradient stays finite."""

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
    """The symmetric R with R R = `matrix` (..., N, N), which is symmetric and positive semi-definite.

    Only the symmetric part is used, and negative eigenvalues, which come from rounding, count as zero. The
    gradient solves R dR + dR R = dA in the eigenbasis, so repeated eigenvalues are no problem. In the null
    space, where the root has no derivative, the gradient is zero.

    >>> sqrtm(torch.diag(torch.tensor([4.0, 9.0, 0.0]))).diagonal().tolist()
    [2.0, 3.0, 0.0]
    """
    root: Tensor = _Root.apply(matrix)  # type: ignore[no-untyped-call]
    return root


def power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive semi-definite matrix (..., N, N), restricted to its range.

    Eigenvalues of 1e-10 of the largest or less, which are rounding, stay zero: a negative power is a
    pseudo-inverse.

    >>> power(torch.diag(torch.tensor([4.0, 0.0])), -0.5).diagonal().tolist()
    [0.5, 0.0]
    """
    values, vectors = torch.linalg.eigh(matrix)
    floor = (values.amax(dim=-1, keepdim=True) * 1e-10).clamp_min(1e-12)
    powers = torch.where(values > floor, values.clamp_min(1e-12) ** exponent, 0.0)
    found: Tensor = (vectors * powers[..., None, :]) @ vectors.mT
    return found


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
    """Runs a LAPACK `routine` on `matrix` with one CPU thread.

    At a few hundred channels more threads gain nothing, and if another process occupies a core they wait for
    each other at every column: 3 s instead of 8 ms. The limit applies to the calling thread only.
    """
    # The first query fixes the thread count of this Python thread, independent of later global changes.
    threads = torch.get_num_threads()
    limit = _mkl_limit() or torch.set_num_threads
    before = limit(1)
    try:
        return routine(matrix)
    finally:
        limit(threads if before is None else before)


@lru_cache(maxsize=1)
def _mkl_limit() -> Callable[[int], int | None] | None:
    """MKL's setter for the thread limit of the calling thread, which returns the old limit; None without MKL.

    `torch.set_num_threads` sets the same limit, but threads that start in the meantime inherit it.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        limit: Callable[[int], int] = ctypes.CDLL(str(library)).MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return None
    return limit
