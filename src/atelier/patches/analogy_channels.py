"""Additional channels for image analogies: edge directions, and the prediction of a linear filter.

Pictures are float32 (H, W, C).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]

_SIDE = 7  # side in pixels of the fitted linear filter
_SAMPLES = 1 << 15
_TRUST = 10.0
_SURELY = 16


def oriented(image: Floats) -> Floats:
    """Responses (H, W, 5) of the mean channel to steerable filters: first and second Gaussian derivatives.

    Freeman & Adelson, "The design and use of steerable filters", 1991. The response in any direction is a
    linear combination of these five, so distances between them cover all directions. Each filter has unit L2
    norm.
    """
    plane = floats(image.mean(axis=2))
    x = np.arange(-4, 5, dtype=np.float64)
    bell = np.exp(-0.5 * x**2)
    first, second = x * bell, (x**2 - 1) * bell
    planes = []
    for across, down in ((first, bell), (bell, first), (second, bell), (bell, second), (first, first)):
        norm = (np.outer(down, across) ** 2).sum() ** 0.5
        planes.append(
            cv2.sepFilter2D(plane, cv2.CV_32F, across / norm, down, borderType=cv2.BORDER_REPLICATE)
        )
    return floats(np.stack(planes, 2).reshape(*plane.shape, 5))


@dataclass
class Prediction:
    """The outputs of a fitted linear filter for A, `source` (H', W', D), and for B, `target` (H, W, D).

    `explained` (D,) is the fraction of the variance of A' that the filter explains.
    """

    source: Floats
    target: Floats
    explained: Floats

    def trusted(self) -> tuple[Floats, Floats]:
        """Both outputs, weighted by the ratio of explained to unexplained standard deviation, at most 10."""
        ratio = (self.explained / np.maximum(1 - self.explained, 1e-9)) ** 0.5
        trust = np.minimum(ratio, _TRUST).astype(np.float32)
        return self.source * trust, self.target * trust

    def corrected(self, made: Floats, field: npt.NDArray[np.int32]) -> Floats:
        """`made` (H, W, D) plus the predicted difference between each pixel and its match in `field`.

        The correction applies only to nearly linear filters: the two values of a threshold must stay two.
        """
        moved = self.target - self.source[field[..., 0], field[..., 1]]
        return floats(made + self.explained**_SURELY * moved)


def predicted(source: Floats, filtered: Floats, target: Floats, seed: int = 0) -> Prediction:
    """Fits a linear filter from `source` (H', W', C) to `filtered` (H', W', D) and applies it to both inputs.

    The filter has a 7x7 window and is fitted by least squares to at most 32768 samples.
    """
    height, width, channels = source.shape
    reach = _SIDE // 2
    places = np.arange(height * width)
    if len(places) > _SAMPLES:
        places = np.random.default_rng(seed).choice(places, _SAMPLES, replace=False)
    rows, columns = np.divmod(places, width)
    padded = np.pad(source, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    windows = [padded[rows + down, columns + right] for down in range(_SIDE) for right in range(_SIDE)]
    known = np.concatenate(windows, 1).astype(np.float64)
    wanted = filtered[rows, columns].astype(np.float64)
    mean, goal = known.mean(0), wanted.mean(0)
    known, wanted = known - mean, wanted - goal
    products = known.T @ known
    # A ridge makes the system solvable for flat pictures and few samples.
    ridge = 1e-6 * np.trace(products) / len(products) + 1e-9
    weights = np.linalg.solve(products + ridge * np.eye(len(products)), known.T @ wanted)
    left = ((wanted - known @ weights) ** 2).mean(0) / np.maximum((wanted**2).mean(0), 1e-12)
    kernels, offset = weights.reshape(_SIDE, _SIDE, channels, -1), goal - mean @ weights
    own, others = (_filtered(image, kernels, offset) for image in (source, target))
    return Prediction(own, others, floats((1 - left).clip(0, 1)))


def _filtered(image: Floats, kernels: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> Floats:
    """An image (H, W, C) filtered with `kernels` (side, side, C, D), plus `offset` (D,): (H, W, D)."""
    made = np.zeros((*image.shape[:2], kernels.shape[3]), np.float32) + offset
    for channel in range(kernels.shape[2]):
        plane = floats(image[..., channel])
        for which in range(kernels.shape[3]):
            kernel = np.ascontiguousarray(kernels[:, :, channel, which])
            part = cv2.filter2D(plane, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
            made[..., which] += part.reshape(plane.shape)
    return floats(made)
