"""Masks that control where a style applies: 1 (white) where it does, 0 (black) where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from atelier.core.errors import InputError, UsageError
from atelier.images.picture import Picture
from atelier.images.resize import resize

Floats = npt.NDArray[np.float32]


def read_mask(source: Any, size: tuple[int, int]) -> Floats:
    """A mask (H, W) float32 0..1 at `size` (height, width), from anything that `Picture.of` takes.

    A mask holds numbers, not colours: the stored 8-bit or 16-bit values are used without colour management.
    An opaque mask is the mean of its channels. In a mask with alpha, transparent parts are 0. If all visible
    pixels have one colour (a shape painted on an empty layer), the mask is the alpha, whatever the colour;
    otherwise it is grey times alpha. Raises InputError for a mask that is black everywhere, because it would
    style nothing.
    """
    picture = Picture.of(source, data=True)
    mask = _coverage(picture)
    if mask.max() > 0:
        tensor = torch.from_numpy(mask)[None, None]
        mask = resize(tensor, size)[0, 0].numpy()
    if mask.max() <= 0:
        raise InputError(
            f"the mask {picture.label} is black everywhere, so nothing would be styled: "
            "paint the part to style white"
        )
    return mask


def _coverage(picture: Picture) -> Floats:
    grey: Floats = picture.pixels.mean(axis=2)
    if picture.alpha is None or picture.alpha.min() == 1:
        return grey
    visible = picture.pixels[picture.alpha > 0]
    one_colour = not len(visible) or np.ptp(visible, axis=0).max() == 0
    return picture.alpha if one_colour else grey * picture.alpha


def feather(mask: Floats, radius_px: float) -> Floats:
    """A mask (H, W) with edges that fade over about `radius_px` pixels on each side.

    The blur is a Gaussian with a standard deviation of half the radius. Raises UsageError for negative radii.
    """
    if radius_px < 0:
        raise UsageError(f"a feather radius must be 0 pixels or more, not {radius_px}")
    if radius_px == 0:
        return mask
    soft: Floats = ndimage.gaussian_filter(mask.astype(np.float32), radius_px / 2, mode="nearest")
    return soft.clip(0, 1)


def blend(content: Tensor, result: Tensor, mask: Floats | Tensor) -> Tensor:
    """`result` where the mask (H, W), 0..1, is 1, and `content` where it is 0; both (B, C, H, W).

    Raises InputError if the sizes differ.
    """
    weight = torch.as_tensor(mask, dtype=result.dtype, device=result.device)
    if not content.shape[-2:] == result.shape[-2:] == weight.shape[-2:]:
        sizes = [tuple(shape[-2:]) for shape in (content.shape, result.shape, weight.shape)]
        raise InputError(f"content, result and mask must have the same size, not {sizes}: resize them first")
    # Not torch.lerp: weights of 1 and 0 must give either picture exactly.
    return content * (1 - weight) + result * weight
