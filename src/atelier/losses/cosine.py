"""Cosine distance between rows and their chosen matches, computed in blocks that fit in the CPU cache.

Kolkin et al. 2022, equations 3 and 5. Hypercolumns are wide: with separate tensor operations, each step
reads and writes them a dozen times, which costs more than the network that computes them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS = 512
#: The smallest norm that rows are divided by: shorter rows have no meaningful direction.
_SHORTEST = 1e-4


def chosen_distances(
    rows: Tensor, table: Tensor, index: Tensor, *, gain: Tensor | None = None, centre: Tensor | None = None
) -> Tensor:
    """1 - cosine between `gain` x row - `centre` and the chosen row of `table`, (N,), in float32 or better.

    `rows` are (N, D). `table` (M, D) has rows of length 1, from which `index` (N,) chooses. `gain` and
    `centre` are (D,). Only `rows` gets a gradient.

    >>> chosen_distances(torch.tensor([[0.0, 3.0]]), torch.eye(2), torch.tensor([0])).item()
    1.0
    """
    distances: Tensor = _Distances.apply(rows, table, index, gain, centre)  # type: ignore[no-untyped-call]
    return distances


def centred(rows: Tensor, gain: Tensor | None, centre: Tensor | None) -> Tensor:
    """`gain` x row - `centre`, in the rows' dtype."""
    if gain is not None:
        rows = rows * gain.to(rows.dtype)
    return rows if centre is None else rows - centre.to(rows.dtype)


def unit(rows: Tensor) -> Tensor:
    """Rows (N, D) normalised to length 1."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=_exact(rows))
    return rows / lengths.clamp(min=_SHORTEST).to(rows.dtype)


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, rows: Tensor, table: Tensor, index: Tensor, gain: Tensor | None, centre: Tensor | None
    ) -> Tensor:
        kept = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        lengths = torch.empty(len(rows), dtype=_exact(rows), device=rows.device)
        cosines = torch.empty_like(lengths)
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            block = centred(rows[part], gain, centre)
            kept[part] = block
            lengths[part] = torch.linalg.vector_norm(block, dim=1, dtype=lengths.dtype)
            cosines[part] = (block * table[index[part]]).sum(1, dtype=lengths.dtype)
        lengths.clamp_(min=_SHORTEST)
        cosines /= lengths
        context.gain = gain
        context.save_for_backward(kept, table, index, lengths, cosines)
        return 1 - cosines

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope: Tensor) -> Any:
        kept, table, index, lengths, cosines = context.saved_tensors
        towards = (-slope / lengths).to(kept.dtype)[:, None]
        # Below the smallest norm the divisor is constant, so the term from the row's length vanishes.
        along = torch.where(lengths > _SHORTEST, slope * cosines / lengths.square(), 0.0)
        along = along.to(kept.dtype)[:, None]
        gradient = torch.empty_like(kept)
        for start in range(0, len(kept), _ROWS):
            part = slice(start, start + _ROWS)
            block = torch.mul(kept[part], along[part]).addcmul_(table[index[part]], towards[part])
            gradient[part] = block if context.gain is None else block.mul_(context.gain.to(kept.dtype))
        return gradient, None, None, None, None


def _exact(rows: Tensor) -> torch.dtype:
    return torch.promote_types(rows.dtype, torch.float32)
