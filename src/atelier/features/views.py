"""Views of a picture for CLIP: crops, random perspective, rotation, and resizing to the network's input.

A network that sees only the whole picture, always from the front, accepts pictures with adversarial noise.
CLIPstyler (Kwon & Ye 2022) shows it random crops in random perspective; ZeCon (Yang et al. 2023) crops of
random size, rotated as well. Everything is differentiable with respect to the pixels. The geometry is that
of torchvision, with random numbers from a generator, so that a seed repeats a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: The direction from each corner to the centre, right and down.
_INWARDS = ((1, 1), (-1, 1), (-1, -1), (1, -1))

# sizes


def fitted(pictures: Tensor, side: int) -> Tensor:
    """Pictures (B, 3, H, W) resized to (B, 3, side, side), bicubic without antialiasing, as in CLIPstyler."""
    return F.interpolate(pictures, (side, side), mode="bicubic", align_corners=False)


def resized(pictures: Tensor, side: int) -> Tensor:
    """Pictures (B, 3, H, W) resized to (B, 3, side, side), bilinear: the views of CLIPstyler."""
    return F.interpolate(pictures, (side, side), mode="bilinear", align_corners=False)


def pooled(pictures: Tensor, side: int) -> Tensor:
    """Pictures (B, 3, H, W) resized to (B, 3, side, side) by adaptive average pooling, as in ZeCon."""
    return F.adaptive_avg_pool2d(pictures, (side, side))


# crops


def random_places(
    count: int, size: tuple[int, int], side: int, generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """Uniform top and left edges of `count` squares of `side` pixels in a picture of `size` (H, W)."""
    height, width = size
    tops = torch.randint(height - side + 1, (count,), generator=generator)
    lefts = torch.randint(width - side + 1, (count,), generator=generator)
    return tops.tolist(), lefts.tolist()


def crops(picture: Tensor, tops: Sequence[int], lefts: Sequence[int], side: int) -> Tensor:
    """Squares (N, 3, side, side) of a picture (1, 3, H, W) at these top and left edges.

    >>> crops(torch.arange(12.0).view(1, 1, 3, 4), [1], [2], 2).flatten().tolist()
    [6.0, 7.0, 10.0, 11.0]
    """
    return torch.cat(
        [picture[..., top : top + side, left : left + side] for top, left in zip(tops, lefts, strict=True)]
    )


def random_boxes(
    count: int,
    size: tuple[int, int],
    area: tuple[float, float],
    generator: torch.Generator,
    *,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> list[tuple[int, int, int, int]]:
    """`count` boxes (top, left, height, width) within a picture of `size` (H, W).

    A box has a uniform share of the picture's area, from `area`, and a log-uniform aspect ratio from
    `ratio`; a box that is too long is shortened to the picture's side.
    """
    height, width = size
    draws = torch.rand((count, 4), generator=generator, dtype=torch.float64).tolist()
    boxes = []
    for share, shape, top, left in draws:
        whole = height * width * (area[0] + share * (area[1] - area[0]))
        aspect = math.exp(math.log(ratio[0]) + shape * (math.log(ratio[1]) - math.log(ratio[0])))
        tall = min(height, max(1, round(math.sqrt(whole / aspect))))
        wide = min(width, max(1, round(math.sqrt(whole * aspect))))
        boxes.append((int(top * (height - tall + 1)), int(left * (width - wide + 1)), tall, wide))
    return boxes


def resized_crops(picture: Tensor, boxes: Sequence[Sequence[int]], side: int) -> Tensor:
    """The boxes (top, left, height, width) of a picture (1, 3, H, W), each resized to a square.

    Bilinear with aligned corners, as kornia's random resized crop. The result is (N, 3, side, side).
    """
    parts = (picture[..., top : top + tall, left : left + wide] for top, left, tall, wide in boxes)
    return torch.cat([F.interpolate(one, (side, side), mode="bilinear", align_corners=True) for one in parts])


# perspective


def random_corners(
    count: int, size: tuple[int, int], generator: torch.Generator, *, distortion: float = 0.5
) -> Tensor:
    """Random positions of a picture's corners, (count, 4, 2) int64, for `perspective`.

    The corners are top left, top right, bottom right, bottom left, each (x, y) in pixels. Each moves inwards
    by whole pixels, uniformly up to `distortion` of half the side.
    """
    height, width = size
    limits = torch.tensor([int(distortion * (width // 2)), int(distortion * (height // 2))])
    moved = (torch.rand((count, 4, 2), generator=generator) * (limits + 1)).long().minimum(limits)
    return corners(size) + moved * torch.tensor(_INWARDS)


def corners(size: tuple[int, int]) -> Tensor:
    """The corners of a picture of `size` (H, W), in the order of `random_corners`: (4, 2) int64."""
    right, bottom = size[1] - 1, size[0] - 1
    return torch.tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]])


def perspective_coefficients(ends: Tensor, size: tuple[int, int]) -> Tensor:
    """The map (N, 8), float64, from moved corners `ends` (N, 4, 2) to the corners of a picture of `size`.

    With coefficients a to h, x' = (a x + b y + c) / (g x + h y + 1), y' = (d x + e y + f) / (g x + h y + 1).
    """
    x, y = ends.double().unbind(-1)
    to = corners(size).to(ends.device).double().expand(len(ends), 4, 2)
    one, nothing = torch.ones_like(x), torch.zeros_like(x)
    for_x = torch.stack([x, y, one, nothing, nothing, nothing, -to[..., 0] * x, -to[..., 0] * y], -1)
    for_y = torch.stack([nothing, nothing, nothing, x, y, one, -to[..., 1] * x, -to[..., 1] * y], -1)
    system, values = torch.cat([for_x, for_y], 1), torch.cat([to[..., 0], to[..., 1]], 1)
    found: Tensor = torch.linalg.solve(system, values)
    return found


def perspective(pictures: Tensor, ends: Tensor) -> Tensor:
    """Pictures (N, 3, H, W), or one for all, with their corners moved to `ends` (N, 4, 2); black outside.

    Bilinear. As in torchvision, positions are evaluated at the centres of pixels but corners count from 0,
    which shifts the picture by a fraction of a pixel.
    """
    height, width = pictures.shape[-2:]
    a, b, c, d, e, f, g, h = (
        one[:, None, None].to(pictures) for one in perspective_coefficients(ends, (height, width)).unbind(1)
    )
    x = torch.arange(width, device=pictures.device, dtype=pictures.dtype) + 0.5
    y = torch.arange(height, device=pictures.device, dtype=pictures.dtype)[:, None] + 0.5
    depth = g * x + h * y + 1
    across, down = (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
    grid = torch.stack([2 * across / width - 1, 2 * down / height - 1], -1)
    whole = pictures.expand(len(ends), -1, -1, -1)
    return F.grid_sample(whole, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


# patches


class Patches(NamedTuple):
    """Random patches of a picture: squares of `side` pixels at `tops` and `lefts`, seen in perspective.

    The corners of a patch move to `ends` (N, 4, 2), which are relative to the patch.
    """

    side: int
    tops: Sequence[int]
    lefts: Sequence[int]
    ends: Tensor


def random_patches(
    count: int, size: tuple[int, int], side: int, generator: torch.Generator, *, distortion: float = 0.5
) -> Patches:
    """`count` patches of a picture of `size` (H, W), as CLIPstyler draws them.

    `side` is cut down to the picture's shorter side.
    """
    side = min(side, *size)
    tops, lefts = random_places(count, size, side, generator)
    return Patches(side, tops, lefts, random_corners(count, (side, side), generator, distortion=distortion))


def patch_views(picture: Tensor, patches: Patches, side: int) -> Tensor:
    """The patches of a picture (1, 3, H, W) in their perspective, resized to (N, 3, side, side)."""
    cut = crops(picture, patches.tops, patches.lefts, patches.side)
    return resized(perspective(cut, patches.ends), side)


# rotation


def rotated(pictures: Tensor, degrees: Tensor, shifts: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) turned by `degrees` (N,) and moved, with their border repeated.

    They turn about the centre, counter-clockwise. `shifts` (N, 2) are the movements to the right and down,
    as parts of the width and height.
    """
    height, width = pictures.shape[-2:]
    turn = degrees.to(pictures).deg2rad()
    cos, sin = turn.cos(), turn.sin()
    # The sides count as 2 in the grid whatever their lengths.
    rows = [[cos, -sin * height / width], [sin * width / height, cos]]
    back = torch.stack([torch.stack(row, -1) for row in rows], 1)
    offset = -back @ (2 * shifts.to(pictures))[..., None]
    grid = F.affine_grid(torch.cat([back, offset], 2), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
