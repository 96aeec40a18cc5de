"""Colour in the search of NNST-D: additional columns that compare the mean colours of cells.

The cosine of centred features ignores how far a feature lies from the mean. In flat parts of the photo
the direction is noise, and a neighbouring cell can match anything: the result is blotchy. The score here is

    q.k / rms|q| - weight * ((dy / sy)^2 + CHROMA * |dc / sc|^2)

for a centred query q, a unit key k, the root mean square length of all queries, and the differences dy in
luma and dc in two chroma channels between the candidate's cell and the photo's. The photo is first moved to
the mean and covariance of the style's cell colours. sy and sc are the style's standard deviations. The
squared distance 2ab - aa - bb is a dot product of five columns, so the search stays one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from atelier import colour, maths
from atelier.core.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Weight of the squared distance in chroma relative to that in luma.
CHROMA = 0.6
#: Smallest standard deviation of cell colours that is not noise; five shades of 255.
NOISE = 0.02
#: Luma and two colour differences (rows) of R, G and B (Rec. 601).
_OPPONENT = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))


def cell_colours(picture: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean luma and chroma (3, h, w) of the cells of a picture (1, 3, H, W), 0..1; edge cells may be cut."""
    return _opponent(picture, cell)[0]


def colour_distances(photos: torch.Tensor, styles: torch.Tensor, cell: int) -> torch.Tensor:
    """Squared colour distances (B, P, M) between the cells of photos (B, 3, H, W) and of styles.

    As in the score above, each photo is first moved to its style's mean and covariance.
    """
    wanted, own = _opponent(photos, cell), _opponent(styles, cell)
    scale = torch.stack([_scale(one.flatten(1).T) for one in own])[:, None]
    moved = colour.match_moments(wanted, own, noise=NOISE)
    left, right = (one.flatten(2).mT * scale for one in (moved, own))
    return torch.cdist(left, right).square()


def _opponent(pictures: torch.Tensor, cell: int) -> torch.Tensor:
    cells = torch.nn.functional.avg_pool2d(pictures.float(), cell, ceil_mode=True, count_include_pad=False)
    return torch.einsum("ij,bjhw->bihw", cells.new_tensor(_OPPONENT), cells)


@dataclass(frozen=True)
class ColourColumns:
    """What to append to the queries and to the candidates' keys, (M, 5 K), for K styles.

    `wanted` (K, 3, h, w) are the colours of the content's cells, moved to each style's and scaled.
    """

    wanted: torch.Tensor
    keys: torch.Tensor
    weight: float

    def queries(self, window: tuple[slice, slice]) -> torch.Tensor:
        """The columns (5 K, h, w) of a window of cells."""
        wanted = self.wanted[(..., *window)]
        one = torch.ones_like(wanted[:, :1])
        columns = torch.cat([2 * wanted, -wanted.square().sum(1, keepdim=True), -one], 1)
        return self.weight * columns.flatten(0, 1)


def colour_columns(
    wanted: torch.Tensor,
    choices: maths.Candidates,
    colours: torch.Tensor,
    weight: float,
    where: Sequence[torch.Tensor | None],
) -> ColourColumns:
    """Columns whose dot product with a query's is -`weight` times the squared colour distance.

    `wanted` (3, h, w) are the cell colours of the content, `colours` (M, 3) those of the candidates. Each
    group of candidates gets five columns, because the content is moved to the moments of each style. `where`
    says, for each group, how much each cell (h, w) counts for the content's moments; None for all alike.
    """
    groups = choices.group_of().to(colours.device)
    moved, keys = [], []
    for group in sorted(set(choices.groups)):
        mine = groups == group
        counted = mine if choices.visible is None else mine & choices.visible.to(mine.device)
        sample = colours[counted if bool(counted.any()) else mine]
        target, scale = sample.T[None, :, None], _scale(sample)
        found = colour.match_moments(wanted[None], target, where=_usable(where[group]), noise=NOISE)
        moved.append(found * scale[:, None, None])
        own = colours[mine] * scale
        block = colours.new_zeros((len(groups), 5))
        block[mine] = torch.cat([own, torch.ones_like(own[:, :1]), own.square().sum(1, keepdim=True)], 1)
        keys.append(block)
    return ColourColumns(torch.cat(moved), torch.cat(keys, 1), weight)


def extended(choices: maths.Candidates, columns: ColourColumns) -> maths.Candidates:
    """The candidates with the columns appended to their keys."""
    return replace(choices, keys=torch.cat([choices.keys, columns.keys.to(choices.keys)], 1))


def _usable(where: torch.Tensor | None) -> torch.Tensor | None:
    """Weights (1, 1, h, w) of the content's cells; None if no cell counts."""
    return None if where is None or not bool(where.any()) else where[None, None]


def _scale(colours: torch.Tensor) -> torch.Tensor:
    """What luma and chroma differences (3,) are multiplied by, from a style's cell colours (N, 3)."""
    luma = colours[:, 0].std(correction=0)
    chroma = colours[:, 1:].var(0, correction=0).sum().sqrt()
    chroma = torch.maximum(chroma, luma / 2)  # in a nearly grey style tints must not decide
    share = CHROMA**0.5 / chroma.clamp(min=NOISE)
    return torch.stack([1 / luma.clamp(min=NOISE), share, share])
