"""Label maps: the region of each pixel, and which regions of two pictures match.

Maps are (H, W), integers below 2^24. The rules are those of Wen, Gao & Zou 2023, which go back to Luan,
Paris, Shechtman & Bala 2017 (Deep Photo Style Transfer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.core.errors import InputError, first_line
from atelier.core.lazy import torch
from atelier.images.picture import Picture

if TYPE_CHECKING:
    from torch import Tensor

# A region counts if both pictures have more pixels of it than this, and neither has 100 times as many.
_FEWEST = 10
_LOPSIDED = 100


def read(file: Any, size: Sequence[int]) -> Tensor:
    """The label map in a picture file, at `size` (height, width), without colour management.

    The label of a grey pixel is its grey value, up to 65,535 in 16-bit files; that of other colours is 65536
    red + 256 green + blue. Greys of 1, 2 and 4 bits are scaled to 8 bits first, and palettes are read as
    colours.
    """
    pixels = torch.from_numpy(Picture.of(file, data=True).pixels)
    colours = pixels.mul(_top(pixels)).round().long()
    red, green, blue = colours.unbind(2)
    grey = (red == green) & (green == blue)
    return resized(torch.where(grey, red, (red << 16) | (green << 8) | blue), size)


def _top(pixels: Tensor) -> int:
    """The integer for 1.0: 65535 in grey maps that do not fit into 8 bits, else 255."""
    eight = pixels * 255
    grey = torch.equal(pixels[..., 0], pixels[..., 1]) and torch.equal(pixels[..., 0], pixels[..., 2])
    return 65535 if grey and (eight - eight.round()).abs().max() > 1e-3 else 255


def read_affinity(file: Any) -> Tensor:
    """The table (K, K) in a .npy file whose column s ranks the labels by similarity to s."""
    try:
        table = file if isinstance(file, np.ndarray) else np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"the table of labels {file} cannot be read as .npy: {first_line(error)}") from error
    label = "the table of labels" if isinstance(file, np.ndarray) else f"'{file}'"
    whole = isinstance(table, np.ndarray) and np.issubdtype(table.dtype, np.integer)
    if not whole or table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise InputError(
            f"{label} is not a square table of integers whose column s ranks the labels by similarity to s"
        )
    return torch.from_numpy(table.astype(np.int64))


def resized(labels: Tensor, size: Sequence[int]) -> Tensor:
    """The map at another size, (height, width), by nearest neighbour."""
    if labels.shape == tuple(size):
        return labels
    planes = labels[None, None].float()  # float32 holds every integer up to 2^24
    return torch.nn.functional.interpolate(planes, tuple(size), mode="nearest-exact")[0, 0].long()


def shared(content: Tensor, style: Tensor) -> list[int]:
    """The labels that the maps of content and style share.

    A shared label has more than 10 pixels in both, and fewer than 100 times as many in one as in the other.

    >>> shared(torch.arange(36).view(6, 6) // 18, torch.zeros(6, 6, dtype=torch.int64))
    [0]
    """
    mine, others = _counted(content), _counted(style)
    found = []
    for label, count in mine.items():
        sizes = (count, others.get(label, 0))
        if min(sizes) > _FEWEST and max(sizes) < _LOPSIDED * min(sizes):
            found.append(label)
    return found


def without_slivers(labels: Tensor, affinity: Tensor, *, smallest: float = 0.02) -> Tensor:
    """The map with each label that covers less than `smallest` of it replaced by the most similar larger one.

    Column s of `affinity` (K, K) ranks the labels by similarity to s.
    """
    counts = _counted(labels)
    large = {label for label, count in counts.items() if count >= smallest * labels.numel()}
    return _replaced(labels, set(counts) - large, large, affinity)


def with_stand_ins(labels: Tensor, style: Tensor, affinity: Tensor) -> Tensor:
    """The content's map with each label that the style lacks replaced by the style's most similar label."""
    present = set(_counted(style))
    return _replaced(labels, set(_counted(labels)) - present, present, affinity)


def _counted(labels: Tensor) -> dict[int, int]:
    values, counts = torch.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _replaced(labels: Tensor, these: set[int], allowed: set[int], affinity: Tensor) -> Tensor:
    result = labels.clone()
    for label in these:
        column = affinity[:, label].tolist() if label < affinity.shape[1] else []
        if (found := next((one for one in column if one in allowed), None)) is not None:
            result[labels == label] = found
    return result
