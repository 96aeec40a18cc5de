"""Arrays and tensors to pixels (H, W, 3), float32 0..1, with separate alpha."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atelier.core.errors import InputError
from atelier.images.metadata import Metadata

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 100_000_000

# Floats slightly outside 0..1 are the overshoot of a resampling filter and are clipped. Values further out
# are on another scale (0..255, scene-referred light), and clipping them would silently give a white picture.
_OVERSHOOT = 0.5

Floats = npt.NDArray[np.float32]


@dataclass
class Decoded:
    """`pixels` (H, W, 3) and `alpha` (H, W) or None, float32 0..1, with recipe and metadata."""

    pixels: Floats
    alpha: Floats | None
    recipe: dict[str, Any] | None = None
    metadata: Metadata = field(default_factory=Metadata)


def from_array(
    values: npt.NDArray[Any], name: str, max_pixels: int = MAX_PIXELS, *, clip: bool = False
) -> Decoded:
    """A picture from an array (H, W) or (H, W, C) with C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).

    The values are booleans, floats 0..1, or integers; see `to_unit` for the range of integers, and for
    `clip`. `name` is for error messages. Raises InputError for any other shape, type or range, and above
    `max_pixels`.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array: fill the masked values first, with .filled(value)")
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4):
        raise InputError(
            f"{name} has the shape {values.shape}: a picture is (height, width) with 1 to 4 channels"
        )
    check_size((values.shape[1], values.shape[0]), name, max_pixels)
    scaled = to_unit(values, name, clip=clip)
    colour = scaled[..., :1] if scaled.shape[2] < 3 else scaled[..., :3]
    alpha = np.ascontiguousarray(scaled[..., -1]) if scaled.shape[2] in (2, 4) else None
    return Decoded(as_rgb(colour), alpha)


def as_rgb(colour: Floats) -> Floats:
    """Colours (H, W, 3) from (H, W, 3), or from (H, W, 1) by repeating the channel."""
    return colour.repeat(3, axis=2) if colour.shape[2] == 1 else np.ascontiguousarray(colour)


def to_unit(values: npt.NDArray[Any], name: str, *, clip: bool = False) -> Floats:
    """Converts values of any shape to float32 0..1.

    - bool: 0 and 1.
    - uint8, uint16: divided by 255 and 65535.
    - Signed and wider integers: divided by 255 if all values are 0..255, as in int64 arrays made from 8-bit
      pictures. Otherwise uint32 and uint64 are divided by their own maximum if the largest value is at least
      1/256 of it. Anything else is ambiguous and refused, including masks of 0 and 1, and int8.
    - Floats: taken as 0..1; an overshoot of up to 0.5 is clipped, and with `clip` any overshoot.

    Raises InputError for other types, for values out of range, and for values that are not finite.
    """
    if values.dtype == np.bool_:
        return values.astype(np.float32)
    if np.issubdtype(values.dtype, np.integer):
        return _integers_to_unit(values, name)
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"{name} holds {values.dtype}: a picture holds uint8, uint16 or floats 0..1")
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{name} holds values that are not finite (NaN or infinity): replace them first")
    if not clip and (low < -_OVERSHOOT or high > 1 + _OVERSHOOT):
        raise InputError(f"{name} holds values from {low:.4g} to {high:.4g}: floats must be 0..1, scale them")
    return np.clip(values, 0, 1, out=np.empty(values.shape, np.float32), casting="same_kind")


def _integers_to_unit(values: npt.NDArray[Any], name: str) -> Floats:
    top = int(np.iinfo(values.dtype).max)
    if values.dtype.kind == "i" or values.dtype.itemsize > 2:
        low, high = int(values.min()), int(values.max())
        if top > 255 and low >= 0 and high <= 255 and high != 1:
            top = 255
        elif values.dtype.kind == "i" or high < top // 256:
            raise InputError(
                f"{name} holds {values.dtype} from {low} to {high}: "
                "convert it to bool, uint8, uint16 or floats 0..1"
            )
    if top <= 65535:
        scaled = values.astype(np.float32)
        scaled /= np.float32(top)
        return scaled
    return (values.astype(np.float64) / top).astype(np.float32)


def straight(colour: Floats, alpha: Floats) -> Floats:
    """Straight colours (H, W, C) from premultiplied ones; black where alpha is 0."""
    return np.asarray((colour / np.maximum(alpha, 1e-6)[..., None]).clip(0, 1), np.float32)


def channels_last(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor (C, H, W) or (1, C, H, W) as an array (H, W, C); floats become float32.

    Raises InputError for other shapes, and for sparse, meta, quantised and nested tensors.
    """
    _check_plain(tensor)
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3:
        raise InputError(f"a picture tensor is (C, H, W) or (1, C, H, W), not {tuple(tensor.shape)}")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    array: npt.NDArray[Any] = (plain.float() if plain.is_floating_point() else plain).permute(1, 2, 0).numpy()
    return array


def _check_plain(tensor: Tensor) -> None:
    import torch

    if tensor.is_nested:
        raise InputError("the tensor is nested: give one (C, H, W) tensor per picture")
    if tensor.layout != torch.strided:
        raise InputError("the tensor is sparse: convert it first, with .to_dense()")
    if tensor.is_meta:
        raise InputError("the tensor is on the meta device and has no values: compute it on a real device")
    if tensor.is_quantized:
        raise InputError("the tensor is quantised: convert it first, with .dequantize()")


def upright(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Applies an EXIF orientation (1..8; anything else counts as 1) to (H, W) or (H, W, C)."""
    turns = {
        2: lambda v: v[:, ::-1],
        3: lambda v: v[::-1, ::-1],
        4: lambda v: v[::-1],
        5: lambda v: v.swapaxes(0, 1),
        6: lambda v: np.rot90(v, -1),
        7: lambda v: v[::-1, ::-1].swapaxes(0, 1),
        8: lambda v: np.rot90(v, 1),
    }
    return turns[orientation](values) if orientation in turns else values


def check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raises InputError if (width, height) is empty or has more than `max_pixels` pixels."""
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"{name} is {width} x {height} pixels: a picture has at least one")
    if width * height > max_pixels:
        raise InputError(
            f"{name} is {width} x {height} = {_counted(width * height)} pixels, and the limit is "
            f"{_counted(max_pixels)}: make it smaller, or raise max_pixels"
        )


def _counted(pixels: int) -> str:
    return f"{pixels / 1e6:,.1f} million" if pixels >= 100_000 else f"{pixels:,}"
