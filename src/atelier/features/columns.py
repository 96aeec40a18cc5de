"""Feature columns: the features of several layers at single positions of a picture, one vector per position.

Kolkin, Salavon & Shakhnarovich 2019, section 2.1, as implemented in their code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.features.vgg import VGG


def layers(encoder: VGG, picture: Tensor, taps: Sequence[str]) -> list[Tensor]:
    """The picture (1, 3, H, W) and its features at `taps`, (1, C, H', W') each, in the encoder's dtype.

    A pooling layer that would reduce a side to nothing is skipped, and the next layers run at the same size.
    For example, at 64 px a picture with an aspect ratio of 5:1 is too small for VGG-16's fifth stage.
    """
    encoder.smallest_side(taps)  # raises UsageError for an unknown tap
    found: dict[str, Tensor] = {}
    values = encoder.normalise(picture)
    for step in encoder.taps[: max(map(encoder.taps.index, taps)) + 1]:
        if step.startswith("pool") and min(values.shape[-2:]) < 2:
            continue
        values = encoder.advance(values, step, keep=any(values is tap for tap in found.values()))
        if step in taps:
            found[step] = values
    return [picture, *(found[tap] for tap in taps)]


def columns(found: Sequence[Tensor], places: Tensor, *, smooth: bool) -> Tensor:
    """The features (N, C) of all layers at `places` (N, 2), given as row and column in the first layer.

    The coordinates are halved wherever a layer has fewer rows than the one before. `smooth` interpolates
    bilinearly; otherwise coordinates are rounded down. The result has the picture's dtype, or float32 for a
    picture in half precision.
    """
    row, column = places.to(found[0].device, _exact(found[0])).unbind(1)
    parts, rows = [], found[0].shape[2]
    for layer in found:
        if layer.shape[2] < rows:
            row, column, rows = row / 2, column / 2, layer.shape[2]
        parts.append((_between if smooth else _above)(layer, row, column))
    return torch.cat(parts, 1)


def _between(layer: Tensor, row: Tensor, column: Tensor) -> Tensor:
    height, width = layer.shape[-2:]
    grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], -1)[None, None]
    exact = layer.to(_exact(layer))
    values = F.grid_sample(
        exact, grid.to(exact.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[0, :, 0].T


def _above(layer: Tensor, row: Tensor, column: Tensor) -> Tensor:
    height, width = layer.shape[-2:]
    at = row.long().clamp(max=height - 1) * width + column.long().clamp(max=width - 1)
    # The gradient of plain indexing is summed in any order where a place occurs twice.
    return layer[0].flatten(1).T.index_select(0, at).to(_exact(layer))


def _exact(layer: Tensor) -> torch.dtype:
    return torch.promote_types(layer.dtype, torch.float32)
