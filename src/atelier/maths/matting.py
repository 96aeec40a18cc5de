"""The matting Laplacian: the deviation of a picture from a locally linear function of its guide.

Levin, Lischinski & Weiss 2008 (eq. 12). In each 3x3 window, a I + b is fitted to the values v, with I the
colours of the guide. The Laplacian M is the symmetric matrix for which v'Mv is the sum of the squared
residuals plus eps |a|^2. It is applied with box sums and closed forms, and never built.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WINDOW = 9
# Rows and columns of the stored entries of a symmetric 3x3 matrix.
_ROWS, _COLUMNS = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)


class MattingLaplacian:
    """The Laplacian of guides (B, 3, H, W), RGB in 0..1, over all 3x3 windows inside the picture.

    Everything is float64: float32 would lose small variances, and flat areas have only those.

    >>> guide = torch.rand(1, 3, 5, 6)
    >>> bool(MattingLaplacian(guide).energy(0.3 * guide + 0.2).max() < 1e-5)
    True
    """

    def __init__(self, guide: Tensor, *, eps: float = 1e-7) -> None:
        with torch.no_grad():
            # Centred on grey to reduce cancellation in the covariances below.
            self.guide = _exact(guide) - 0.5
            self.empty = min(guide.shape[-2:]) < 3
            if not self.empty:
                self.mean = _box(self.guide) / _WINDOW
                self.factors = _factors(self.guide, self.mean, eps / _WINDOW)

    def times(self, values: Tensor) -> Tensor:
        """M v for each plane of `values` (B, C, H, W), any C, in float64 and without a gradient."""
        with torch.no_grad():
            values = _exact(values)
            if self.empty:
                return torch.zeros_like(values)
            mean = _box(values) / _WINDOW
            slope = self._slope(values, mean)
            # The b of the fit a I + b; M v sums the residuals v - a I - b of a pixel over its windows.
            offset = mean - (slope * self.mean[:, None]).sum(2)
            windows = _spread(torch.ones_like(mean[:, :1]))
            fitted = (_spread(slope) * self.guide[:, None]).sum(2) + _spread(offset)
            return windows * values - fitted

    def energy(self, values: Tensor) -> Tensor:
        """v'Mv (B,), summed over the planes of `values` (B, C, H, W), in float64."""
        return (_exact(values.detach()) * self.times(values)).sum((1, 2, 3))

    def _slope(self, values: Tensor, mean: Tensor) -> Tensor:
        """The slope a of the fit in each window, (B, C, 3, H - 2, W - 2)."""
        products = _box(values[:, :, None] * self.guide[:, None]) / _WINDOW
        return _solve(self.factors, products - mean[:, :, None] * self.mean[:, None])


def _factors(guide: Tensor, mean: Tensor, ridge: float) -> Tensor:
    """The L D L' factors (6, B, 1, H - 2, W - 2) of each window's covariance: d1, l21, l31, d2, l32, d3.

    `ridge` is added to the diagonal. Cofactors would cancel in grey pictures, whose three channels are equal.
    """
    products = _box(guide[:, _ROWS] * guide[:, _COLUMNS]) / _WINDOW
    c11, c12, c13, c22, c23, c33 = (products - mean[:, _ROWS] * mean[:, _COLUMNS]).unsqueeze(2).unbind(1)
    # Pivots fall below the ridge only by rounding.
    d1 = (c11 + ridge).clamp(min=ridge)
    l21, l31 = c12 / d1, c13 / d1
    d2 = (c22 + ridge - l21 * c12).clamp(min=ridge)
    l32 = (c23 - l31 * c12) / d2
    d3 = (c33 + ridge - l31 * c13 - l32 * l32 * d2).clamp(min=ridge)
    return torch.stack([d1, l21, l31, d2, l32, d3])


def _solve(factors: Tensor, right: Tensor) -> Tensor:
    """Solves L D L' x = `right` (B, C, 3, h, w) for x."""
    d1, l21, l31, d2, l32, d3 = factors
    y1, y2, y3 = right.unbind(2)
    y2 = y2 - l21 * y1
    y3 = y3 - l31 * y1 - l32 * y2
    x3 = y3 / d3
    x2 = y2 / d2 - l32 * x3
    return torch.stack([y1 / d1 - l21 * x2 - l31 * x3, x2, x3], 2)


def _box(planes: Tensor) -> Tensor:
    """The sum over each 3x3 window, (..., H - 2, W - 2)."""
    rows = planes[..., :-2, :] + planes[..., 1:-1, :] + planes[..., 2:, :]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def _spread(windows: Tensor) -> Tensor:
    """The sum (..., H, W) of `windows` (..., H - 2, W - 2) over all windows that contain each pixel."""
    return _box(torch.nn.functional.pad(windows, (2, 2, 2, 2)))


def _exact(tensor: Tensor) -> Tensor:
    # Apple's GPU has no float64.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
