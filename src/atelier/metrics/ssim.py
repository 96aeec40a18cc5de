"""Structural similarity of the result and the content, at one scale and at five."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor

from atelier.core.errors import InputError
from atelier.metrics.base import Style, alike
from atelier.metrics.psnr import luminance

#: Side of the Gaussian window in pixels, and its deviation.
WINDOW, SIGMA = 11, 1.5
#: The weights of the five scales of MS-SSIM, fine to coarse (Wang et al. 2003).
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class SSIM:
    """SSIM (Wang et al. 2004) by scikit-image, -1..1; 1 is the same picture.

    An 11x11 Gaussian window and population moments; the mean over R, G and B, or of the luminance
    0.299 R + 0.587 G + 0.114 B with `luma`. Raises InputError for a side of less than 11 px.
    """

    luma: bool = False

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        _check(content, WINDOW)
        pictures = (alike(result, content), content)
        one, other = (luminance(p) if self.luma else p for p in pictures)
        return float(np.mean(ssim_per_channel(_planes(one), _planes(other))))


def ssim_per_channel(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> list[float]:
    """SSIM of each of the channels (C, H, W) in 0..1."""
    settings = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False, "data_range": 1.0}
    return [
        float(structural_similarity(a, b, **settings))  # type: ignore[no-untyped-call]
        for a, b in zip(one, other, strict=True)
    ]


@dataclass(frozen=True)
class MultiscaleSSIM:
    """MS-SSIM (Wang, Simoncelli & Bovik 2003), 0..1; 1 is the same picture.

    Contrast and structure at five scales, each half of the one before, and luminance at the coarsest. A
    negative mean at a scale counts as 0. The mean over R, G and B. Raises InputError for a side of less than
    176 px, where the coarsest scale is smaller than the window.
    """

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        _check(content, WINDOW << (len(SCALES) - 1))
        one, other = alike(result, content).double(), content.double()
        product = torch.ones(3, dtype=torch.float64)
        for scale, weight in enumerate(SCALES):
            light, rest = _terms(one, other)
            last = scale == len(SCALES) - 1
            product = product * (light if last else rest).clamp(min=0) ** weight
            one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
        return float(product.mean())


def _terms(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast and structure alone, (3,), of pictures (1, 3, H, W) in float64."""
    mean_a, mean_b = _soft(one), _soft(other)
    var_a, var_b = _soft(one * one) - mean_a**2, _soft(other * other) - mean_b**2
    both = _soft(one * other) - mean_a * mean_b
    rest = (2 * both + _C2) / (var_a + var_b + _C2)
    light = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return (light * rest).mean((0, 2, 3)), rest.mean((0, 2, 3))


def _soft(picture: Tensor) -> Tensor:
    """The Gaussian-weighted mean of every whole window."""
    places = torch.arange(WINDOW, dtype=picture.dtype) - WINDOW // 2
    bell = torch.exp(-(places**2) / (2 * SIGMA**2))
    bell = (bell / bell.sum()).expand(picture.shape[1], 1, 1, -1)
    rows = F.conv2d(picture, bell, groups=picture.shape[1])
    return F.conv2d(rows, bell.mT, groups=picture.shape[1])


def _planes(picture: Tensor) -> npt.NDArray[np.float64]:
    planes: npt.NDArray[np.float64] = picture[0].double().cpu().numpy()
    return planes


def _check(content: Tensor, needed: int) -> None:
    height, width = content.shape[-2:]
    if min(height, width) < needed:
        raise InputError(
            f"a picture of {width}x{height} px is too small for this SSIM, which needs {needed} px a side"
        )
