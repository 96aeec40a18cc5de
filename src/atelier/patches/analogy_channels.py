"""What an analogy may compare beside the pixels: which way edges run, and what a filter would make.

Pictures are float32 (H, W, C).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]

_SIDE = 7  # of the window that a filter is fitted to
_SAMPLES = 1 << 15
_TRUST = 10.0
_SURELY = 16


def oriented(image: Floats) -> Floats:
    """Responses (H, W, 5) of the mean channel to steerable filters: derivatives of a Gaussian by two orders.

    Freeman & Adelson, "The design and use of steerable filters", 1991. Every direction's response is a sum
    of these, so their distance is that of all directions. Each filter's squares sum to 1.
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
    """What the linear filter that is most like another makes of A (H', W', D) and of B (H, W, D).

    `explained` (D,) is the share of the other filter's variance that it explains.
    """

    source: Floats
    target: Floats
    explained: Floats

    def trusted(self) -> tuple[Floats, Floats]:
        """Both times the ratio of what is explained to what is not, as deviations; 10 at most."""
        ratio = (self.explained / np.maximum(1 - self.explained, 1e-9)) ** 0.5
        trust = np.minimum(ratio, _TRUST).astype(np.float32)
        return self.source * trust, self.target * trust

    def corrected(self, made: Floats, field: npt.NDArray[np.int32]) -> Floats:
        """`made` (H, W, D) of pixels from `field`, moved by what the linear filter says of each pair.

        Only what is nearly linear is: a threshold's two values must stay two.
        """
        moved = self.target - self.source[field[..., 0], field[..., 1]]
        return floats(made + self.explained**_SURELY * moved)


def predicted(source: Floats, filtered: Floats, target: Floats, seed: int = 0) -> Prediction:
    """The linear filter that best makes `filtered` (H', W', D) of `source` (H', W', C), on both inputs.

    Its windows are 7 pixels a side; it is fitted to 32768 of them, by least squares.
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
    # A ridge, so that flat pictures and few samples have an answer too.
    ridge = 1e-6 * np.trace(products) / len(products) + 1e-9
    weights = np.linalg.solve(products + ridge * np.eye(len(products)), known.T @ wanted)
    left = ((wanted - known @ weights) ** 2).mean(0) / np.maximum((wanted**2).mean(0), 1e-12)
    kernels, offset = weights.reshape(_SIDE, _SIDE, channels, -1), goal - mean @ weights
    own, others = (_filtered(image, kernels, offset) for image in (source, target))
    return Prediction(own, others, floats((1 - left).clip(0, 1)))


def _filtered(image: Floats, kernels: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> Floats:
    """Sums over the channels of (H, W, C), each with its kernel (side, side, C, D), plus `offset` (D,)."""
    made = np.zeros((*image.shape[:2], kernels.shape[3]), np.float32) + offset
    for channel in range(kernels.shape[2]):
        plane = floats(image[..., channel])
        for which in range(kernels.shape[3]):
            kernel = np.ascontiguousarray(kernels[:, :, channel, which])
            part = cv2.filter2D(plane, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
            made[..., which] += part.reshape(plane.shape)
    return floats(made)
