"""NNST-D in a video: what the last frame chose, moved by the flow, is a candidate in the search.

A search of its own in every frame finds other patches for the same place, and the paint boils. Here a place
keeps its patch while no other is better by `BONUS`. Motion is finer than the grid of cells, so a place
remembers where its patch lies in the style as a fraction of a cell: in slow motion, too, the paint moves with
the thing that it paints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atelier.core.lazy import torch
from atelier.images.resize import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atelier.methods.base import Job

#: How much better than the last frame's choice another one must be, in units of the score.
BONUS = 0.3


@dataclass(frozen=True)
class Moving:
    """The last frame's choices at one level, at the places of this frame.

    `index` (h, w) are the candidates, `known` (h, w) says where there is one, and `places` (3, h, w) holds
    grid, row and column of each, the last two with fractions.
    """

    index: torch.Tensor
    known: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of(
        cls, job: Job, level: int, cells: tuple[int, int], grids: Sequence[tuple[int, int]]
    ) -> Moving | None:
        """From the job's memory; None in a picture, and in the first frame of a scene."""
        last = None if job.memory is None else job.memory.get(_name(level))
        if last is None or tuple(last.shape[1:]) != cells or job.flow is None:
            return None
        height, width = job.content.shape[-2:]
        rows, columns = torch.meshgrid(*(torch.arange(side) for side in cells), indexing="ij")
        flow = resize(job.flow.float(), cells)[0].cpu()
        came_y, came_x = rows + flow[1] * cells[0] / height, columns + flow[0] * cells[1] / width
        y, x = came_y.round().long(), came_x.round().long()
        inside = (y >= 0) & (y < cells[0]) & (x >= 0) & (x < cells[1])
        y, x = y.clamp(0, cells[0] - 1), x.clamp(0, cells[1] - 1)
        grid, row, column = last.cpu()[:, y, x]
        row, column = row + (came_y - y), column + (came_x - x)
        sides = torch.tensor(grids)[grid.long()].unbind(-1)
        known = inside & (row.round() >= 0) & (row.round() < sides[0])
        known &= (column.round() >= 0) & (column.round() < sides[1])
        if job.known is not None:
            known &= resize(job.known.float(), cells)[0, 0].cpu() > 0.5
        starts = torch.tensor([0, *(down * right for down, right in grids)]).cumsum(0)[:-1]
        index = starts[grid.long()] + row.round().long() * sides[1] + column.round().long()
        index = torch.where(known, index, 0)
        places = torch.stack([grid, row, column])
        return cls(*(one.to(job.device) for one in (index, known, places)))

    def kept(
        self,
        found: torch.Tensor,
        queries: torch.Tensor,
        keys: torch.Tensor,
        bias: torch.Tensor | None,
        window: tuple[slice, slice],
    ) -> torch.Tensor:
        """The candidates `found` (h, w) for queries (P, h, w) of a window, or the last ones if those do."""
        last, rows = self.index[window], queries.flatten(1).T

        def score(index: torch.Tensor) -> torch.Tensor:
            flat = index.flatten()
            scores = (torch.nn.functional.embedding(flat, keys) * rows).sum(1).float()
            return (scores if bias is None else scores + bias[flat]).view(index.shape)

        keep = self.known[window] & (score(last) + BONUS >= score(found))
        return torch.where(keep, last, found)


def remember(
    job: Job, level: int, index: torch.Tensor, grids: Sequence[tuple[int, int]], moving: Moving | None
) -> None:
    """Leave the choices (h, w) of a level for the next frame of a video."""
    if job.memory is None:
        return
    starts = torch.tensor([0, *(down * right for down, right in grids)], device=index.device).cumsum(0)
    grid = torch.bucketize(index, starts[1:-1], right=True)
    inside = index - starts[grid]
    columns = torch.tensor([right for _, right in grids], device=index.device)[grid]
    places = torch.stack([grid, inside // columns, inside % columns]).float()
    if moving is not None:
        places = torch.where(moving.known & (index == moving.index), moving.places, places)
    job.memory[_name(level)] = places.cpu()


def _name(level: int) -> str:
    return f"nnst_d choices {level}"
