"""Colour and contrast in the search of NNST-D: additional columns that compare what cells look like.

The cosine of centred features ignores how far a feature lies from the mean. In flat parts of the photo
the direction is noise, and a neighbouring cell can match anything: the result is blotchy. The score here is

    q.k / rms|q| - weight * ((dy / sy)^2 + CHROMA * |dc / sc|^2 + flatness * (dv / sv)^2)

for a centred query q, a unit key k, the root mean square length of all queries, and the differences between
the candidate's cell and the photo's: dy in luma, dc in two chroma channels, and dv in the logarithm of the
local contrast. The photo is first moved to the mean and covariance of the style's cell colours, and to the
mean and variance of its contrasts. sy, sc and sv are the style's standard deviations. By the contrast, flat
parts of the photo take the flattest of the style; by colour alone, a sky is filled with hair or feathers of
its tone. The squared distance 2ab - aa - bb is a dot product of six columns, so the search stays one matrix
product.
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
#: The same for the logarithms of contrasts, and the deviation of luma that is grain rather than contrast.
_EVEN, _GRAIN = 0.1, 0.01
#: Luma and two colour differences (rows) of R, G and B (Rec. 601).
_OPPONENT = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))


def cell_tones(picture: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean luma, two chroma and local contrast (4, h, w) of the cells of a picture (1, 3, H, W), 0..1.

    The contrast is the logarithm of the standard deviation of luma over 3 x 3 cells. Edge cells may be cut.
    """
    colours = _opponent(picture, cell)
    luma = torch.einsum("j,bjhw->bhw", colours.new_tensor(_OPPONENT[0]), picture.float())[:, None]
    mean, squares = (_pooled(one, 3, 1, 1) for one in (colours[:, :1], _pooled(luma.square_(), cell, cell)))
    contrast = ((squares - mean.square()).clamp(min=0) + _GRAIN**2).log() / 2
    return torch.cat([colours, contrast], 1)[0]


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
    cells = _pooled(pictures.float(), cell, cell)
    return torch.einsum("ij,bjhw->bihw", cells.new_tensor(_OPPONENT), cells)


def _pooled(maps: torch.Tensor, side: int, step: int, edge: int = 0) -> torch.Tensor:
    """Means over squares, which are cut at the edges."""
    return torch.nn.functional.avg_pool2d(maps, side, step, edge, ceil_mode=True, count_include_pad=False)


@dataclass(frozen=True)
class ToneColumns:
    """What to append to the queries and to the candidates' keys, (M, (T + 2) K), for K styles and T tones.

    `wanted` (K, T, h, w) are the tones of the content's cells, moved to each style's and scaled.
    """

    wanted: torch.Tensor
    keys: torch.Tensor
    weight: float

    def queries(self, window: tuple[slice, slice]) -> torch.Tensor:
        """The columns ((T + 2) K, h, w) of a window of cells."""
        wanted = self.wanted[(..., *window)]
        one = torch.ones_like(wanted[:, :1])
        columns = torch.cat([2 * wanted, -wanted.square().sum(1, keepdim=True), -one], 1)
        return self.weight * columns.flatten(0, 1)


def tone_columns(
    wanted: torch.Tensor,
    choices: maths.Candidates,
    tones: torch.Tensor,
    weight: float,
    flatness: float,
    where: Sequence[torch.Tensor | None],
) -> ToneColumns:
    """Columns whose dot product with a query's is -`weight` times the squared distance of the score.

    `wanted` (4, h, w) are the cell tones of the content, `tones` (M, 4) those of the candidates. With a
    `flatness` of 0, contrasts are not compared. Each group of candidates gets its own columns, because the
    content is moved to the moments of each style. `where` says, for each group, how much each cell (h, w)
    counts for the content's moments; None for all alike.
    """
    groups = choices.group_of().to(tones.device)
    moved, keys = [], []
    for group in sorted(set(choices.groups)):
        mine = groups == group
        counted = mine if choices.visible is None else mine & choices.visible.to(mine.device)
        sample = tones[counted if bool(counted.any()) else mine]
        usable, scale = _usable(where[group]), _scale(sample)
        found = [_moved(wanted[:3], sample[:, :3], usable, NOISE) * scale[:, None, None]]
        own = [tones[mine, :3] * scale]
        if flatness:
            scale = flatness**0.5 / sample[:, 3:].std(0, correction=0).clamp(min=_EVEN)
            found.append(_moved(wanted[3:], sample[:, 3:], usable, _EVEN) * scale)
            own.append(tones[mine, 3:] * scale)
        moved.append(torch.cat(found))
        rows = torch.cat(own, 1)
        block = tones.new_zeros((len(groups), rows.shape[1] + 2))
        block[mine] = torch.cat([rows, torch.ones_like(rows[:, :1]), rows.square().sum(1, keepdim=True)], 1)
        keys.append(block)
    return ToneColumns(torch.stack(moved), torch.cat(keys, 1), weight)


def _moved(
    wanted: torch.Tensor, sample: torch.Tensor, where: torch.Tensor | None, noise: float
) -> torch.Tensor:
    """Maps (C, h, w) with the mean and covariance of a sample (N, C)."""
    return colour.match_moments(wanted[None], sample.T[None, :, None], where=where, noise=noise)[0]


def extended(choices: maths.Candidates, columns: ToneColumns) -> maths.Candidates:
    """The candidates with the columns appended to their keys."""
    return replace(choices, keys=torch.cat([choices.keys, columns.keys.to(choices.keys)], 1))


def _usable(where: torch.Tensor | None) -> torch.Tensor | None:
    """Weights (1, 1, h, w) of the content's cells; None if no cell counts."""
    return None if where is None or not bool(where.any()) else where[None, None]


def _scale(colours: torch.Tensor) -> torch.Tensor:
    """What luma and chroma differences (3,) are multiplied by, from a style's cell colours (N, 3 or 4)."""
    luma = colours[:, 0].std(correction=0)
    chroma = colours[:, 1:3].var(0, correction=0).sum().sqrt()
    chroma = torch.maximum(chroma, luma / 2)  # in a nearly grey style tints must not decide
    share = CHROMA**0.5 / chroma.clamp(min=NOISE)
    return torch.stack([1 / luma.clamp(min=NOISE), share, share])
