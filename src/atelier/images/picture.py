"""`Picture`: pixels with alpha, name, hash, recipe and metadata, from any source."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from atelier.core.errors import InputError
from atelier.images import reading, stylefile
from atelier.images.arrays import MAX_PIXELS, Decoded, channels_last, from_array
from atelier.images.metadata import NO_METADATA, Metadata
from atelier.images.pil import from_pil
from atelier.images.resize import fit, resize_arrays

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Rows that are converted to integers at a time.
_STRIP = 256
Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class Picture:
    """`pixels` float32 (H, W, 3) sRGB 0..1, `alpha` float32 (H, W) 0..1 or None.

    `name` is the path as given, and `sha256` the hash of the file, or of the pixels if there is no file.
    `recipe` is the recipe of the picture, if known, `artifacts` are additional outputs of a method, and
    `metadata` holds resolution, rights and origin.

    Raises InputError if the arrays are empty or have other shapes.

    >>> Picture.of(np.zeros((2, 3), np.uint8)).size
    (3, 2)
    """

    pixels: Floats
    alpha: Floats | None = None
    name: str = ""
    sha256: str = ""
    recipe: dict[str, Any] | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    metadata: Metadata = NO_METADATA

    def __post_init__(self) -> None:
        self.pixels = np.ascontiguousarray(self.pixels, dtype=np.float32)
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or not self.pixels.size:
            shape = tuple(self.pixels.shape)
            raise InputError(f"{self.label} is not a picture: pixels must be (height, width, 3), not {shape}")
        if self.alpha is not None:
            self.alpha = np.ascontiguousarray(self.alpha, dtype=np.float32)
            if self.alpha.shape != self.pixels.shape[:2]:
                raise InputError(f"the alpha channel of {self.label} and its pixels differ in size")
        self.sha256 = self.sha256 or _hash(self.pixels, self.alpha)

    @property
    def label(self) -> str:
        """The picture's name in error messages."""
        return f"'{self.name}'" if self.name else "the picture"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels, the order of arrays and tensors."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @classmethod
    def open(cls, path: str | Path, *, max_pixels: int = MAX_PIXELS, data: bool = False) -> Picture:
        """The first frame or page of a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC file, upright, in sRGB.

        Also opens the painting in a style file (.safetensors) that `save_style` wrote. 16-bit and float files
        keep their depth. `data` is for masks, label maps and other numbers that are not colours: they are not
        colour-managed, whatever profile, gamma or colour space the file declares.

        Raises InputError for a file that is missing, not a picture, damaged, or larger than `max_pixels`,
        which is checked before decoding.
        """
        if Path(path).suffix.lower() == stylefile.SUFFIX:
            pixels, alpha, digest = stylefile.read(Path(path))
            return cls(pixels, alpha, name=str(path), sha256=digest)
        made, digest = reading.read_decoded(path, max_pixels, as_data=data)
        return replace(_of_decoded(made, digest), name=str(path))

    @classmethod
    def of(cls, source: Any, *, max_pixels: int = MAX_PIXELS, data: bool = False) -> Picture:
        """A picture from a path, a PIL image, an array, a tensor or a picture.

        Arrays are (H, W) or (H, W, C) with C = 1 (grey), 2 (grey, alpha), 3 or 4, of bool, uint8 or
        uint16 (0..their maximum), wider integers (0..255, or unsigned ones up to their maximum; see
        `arrays.to_unit`) or floats 0..1. Tensors are (C, H, W) or (1, C, H, W). `data` is as for `open`; a
        picture is returned as it is. Raises InputError for anything else.
        """
        if isinstance(source, Picture):
            return source
        if isinstance(source, str | Path):
            return cls.open(source, max_pixels=max_pixels, data=data)
        if isinstance(source, Image.Image):
            return _of_decoded(from_pil(source, max_pixels, as_data=data))
        if isinstance(source, np.ndarray):
            return _of_decoded(from_array(source, "the array", max_pixels))
        if _is_tensor(source):
            return _of_decoded(from_array(channels_last(source), "the tensor", max_pixels))
        kind = type(source).__name__
        raise InputError(
            f"a picture cannot be made from {kind}: give a path, a PIL image, an array or a tensor"
        )

    @classmethod
    def from_tensor(
        cls,
        tensor: Tensor,
        *,
        name: str = "",
        alpha: Floats | None = None,
        recipe: dict[str, Any] | None = None,
    ) -> Picture:
        """A picture from a network's output: (C, H, W) or (1, C, H, W), clamped to 0..1.

        Raises InputError if values are not finite, for example after a run that diverged.
        """
        values = channels_last(tensor)
        made = from_array(values, "the result", max_pixels=values.size, clip=True)
        return cls(made.pixels, alpha if made.alpha is None else made.alpha, name=name, recipe=recipe)

    def tensor(self, device: str | torch.device = "cpu", *, share: bool = False) -> Tensor:
        """Float32 (1, 3, H, W) 0..1 on `device`.

        The tensor is a copy. With `share` and a CPU device it shares the memory of the picture, in
        channels-last layout, and must not be modified.
        """
        import torch

        planes = self.pixels.transpose(2, 0, 1)[None]
        return torch.from_numpy(planes if share else planes.copy()).to(device)

    def pil(self) -> Image.Image:
        """The picture with 8 bits per channel: RGB, or RGBA if it has alpha."""
        return Image.fromarray(to_integers(self, bits=8))

    def resized(self, size: int | tuple[int, int]) -> Picture:
        """The picture at another size: its long side in pixels, or (height, width).

        Colours hidden by alpha do not bleed into visible ones.
        """
        height, width = fit(self.shape, size) if isinstance(size, int) else size
        if (width, height) == self.size:
            return self
        pixels, alpha = resize_arrays(self.pixels, self.alpha, (height, width))
        return replace(self, pixels=pixels, alpha=alpha, sha256="")


def to_integers(picture: Picture, bits: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """(H, W, 3 or 4) uint8 or uint16: 0..1 clipped, scaled, and rounded half to even."""
    layers = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha[..., None]]
    channels, kind = sum(layer.shape[2] for layer in layers), np.uint8 if bits == 8 else np.uint16
    result = np.empty((*picture.pixels.shape[:2], channels), kind)
    for top in range(0, len(result), _STRIP):  # strips, to keep the working copies small
        values = np.concatenate([layer[top : top + _STRIP] for layer in layers], axis=2)
        if not np.isfinite(values).all():
            raise InputError(
                f"{picture.label} holds values that are not finite, so it cannot be shown or written"
            )
        result[top : top + _STRIP] = np.rint(values.clip(0, 1) * np.float32(2**bits - 1))
    return result


def _hash(pixels: Floats, alpha: Floats | None) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    for array in (pixels, alpha):
        if array is not None:
            digest.update(array.data)
    return digest.hexdigest()


def _of_decoded(decoded: Decoded, sha256: str = "") -> Picture:
    return Picture(
        decoded.pixels, decoded.alpha, sha256=sha256, recipe=decoded.recipe, metadata=decoded.metadata
    )


def _is_tensor(source: Any) -> bool:
    # By name, so that torch is not imported for arrays and paths.
    return type(source).__module__.partition(".")[0] == "torch" and hasattr(source, "detach")
