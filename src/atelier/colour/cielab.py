"""CIELAB and luminance (D65) of sRGB 0..1, for tensors (B, C, H, W) and arrays (H, W, C).

Tensor conversions are differentiable, with finite gradients at black.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]

# Rec. 709 primaries with the white point D65 of the 2 degree observer.
_RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)
_BEND = 6 / 29


def luminance(rgb: Tensor) -> Tensor:
    """Relative luminance Y (B, 1, H, W) 0..1 of sRGB, computed in linear light (IEC 61966-2-1)."""
    weights = rgb.new_tensor(_RGB_TO_XYZ[1]).view(1, 3, 1, 1)
    return (_to_linear(rgb) * weights).sum(dim=1, keepdim=True)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIELAB (D65) of sRGB: lightness 0..100, a and b about -110..110 (CIE 15:2004)."""
    matrix = rgb.new_tensor(_RGB_TO_XYZ) / rgb.new_tensor(_WHITE)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, _to_linear(rgb))
    root = torch.where(xyz > _BEND**3, xyz.clamp_min(_BEND**3) ** (1 / 3), xyz / (3 * _BEND**2) + 4 / 29)
    x, y, z = root.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """sRGB of CIELAB (D65); out-of-gamut colours are clipped to 0..1."""
    lightness, a, b = lab.unbind(dim=1)
    y = (lightness + 16) / 116
    root = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(root > _BEND, root.clamp_min(_BEND) ** 3, 3 * _BEND**2 * (root - 4 / 29))
    matrix = torch.linalg.inv(torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)) * torch.tensor(
        _WHITE, dtype=torch.float64
    )
    return _to_coded(torch.einsum("ij,bjhw->bihw", matrix.to(lab), xyz))


def _to_linear(rgb: Tensor) -> Tensor:
    power = ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(rgb > 0.04045, power, rgb / 12.92)


def _to_coded(linear: Tensor) -> Tensor:
    power = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, power, 12.92 * linear).clamp(0, 1)


def to_lab(image: Floats) -> Floats:
    """CIELAB of sRGB 0..1: lightness 0..100, a and b about -110..110."""
    return floats(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))


def from_lab(lab: Floats) -> Floats:
    """sRGB 0..1 of CIELAB; out-of-gamut colours are clipped."""
    return floats(cv2.cvtColor(floats(lab), cv2.COLOR_LAB2RGB)).clip(0, 1)


def lightness(image: Floats) -> Floats:
    """CIELAB lightness (H, W), divided by 100."""
    return floats(to_lab(image)[..., 0] / 100)
