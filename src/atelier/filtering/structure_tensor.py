"""The structure tensor: the direction of edges and strokes at each pixel, and smoothing along it.

Kass & Witkin, "Analyzing oriented patterns", 1987; for colour pictures as in Di Zenzo, "A note on the
gradient of a multi-image", 1986. Arrays are float32: pictures (H, W) or (H, W, C), directions (H, W, 2) as
(x, y).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats, in_bands, kernel

Floats = npt.NDArray[np.float32]

# Flat areas take their direction from wider neighbourhoods: factors of sigma and their weights.
_FARTHER = ((4.0, 0.1), (16.0, 0.01))


def blur(image: Floats, sigma: float) -> Floats:
    """A Gaussian blur with a standard deviation of `sigma` pixels and mirrored edges; 0 changes nothing."""
    if sigma <= 0.05:
        return image
    border = cv2.BORDER_REPLICATE if min(image.shape[:2]) == 1 else cv2.BORDER_REFLECT
    if sigma < 8 or min(image.shape[:2]) < 32:
        blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=border)
    else:  # wide blurs on a smaller picture: visually identical and many times faster
        factor = int(sigma // 3)
        height, width = image.shape[:2]
        small = cv2.resize(
            image, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA
        )
        small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=border)
        blurred = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return floats(blurred)


def structure_tensor(image: Floats, sigma: float) -> Floats:
    """The products xx, xy and yy (H, W, 3) of the gradients, summed over channels and blurred by `sigma`."""
    border = cv2.BORDER_REPLICATE
    x = cv2.Sobel(image, cv2.CV_32F, 1, 0, scale=0.25, borderType=border)
    y = cv2.Sobel(image, cv2.CV_32F, 0, 1, scale=0.25, borderType=border)
    products = [(a * b).sum(axis=2) if image.ndim == 3 else a * b for a, b in ((x, x), (x, y), (y, y))]
    return blur(floats(np.stack(products, axis=2)), sigma)


def directions(tensor: Floats) -> tuple[Floats, Floats]:
    """Unit vectors (H, W, 2) along the edges, and anisotropy (H, W): 0 for none, 1 for a clear direction.

    The vectors point along x where the tensor is zero. They are axes: v and -v mean the same.
    """
    xx, xy, yy = (tensor[..., index] for index in range(3))
    difference = np.hypot(xx - yy, 2 * xy)
    total = xx + yy
    # Half the angle of the gradient's double-angle vector, rotated by 90 degrees.
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.float32(math.pi / 2)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=2)
    vectors[total <= 1e-12] = (1, 0)
    return floats(vectors), floats(np.where(total > 1e-12, difference / np.maximum(total, 1e-12), 0))


def flow(image: Floats, sigma: float) -> tuple[Floats, Floats]:
    """A smooth, gapless field of edge directions (H, W, 2), and its anisotropy (H, W).

    Flat areas take their direction from the nearest contours.
    """
    tensor = structure_tensor(image, sigma)
    wide = tensor.copy()
    for factor, weight in _FARTHER:
        wide += np.float32(weight) * blur(tensor, factor * max(sigma, 1.0))
    return directions(wide)[0], directions(tensor)[1]


def smooth_along(image: Floats, vectors: Floats, sigma: float) -> Floats:
    """Line integral convolution: a Gaussian of `sigma` pixels along the streamlines of `vectors`.

    Cabral & Leedom, "Imaging vector fields using line integral convolution", 1993. Streamlines end at the
    border of the picture and have at most 16 steps in each direction. `image` is (H, W) or (H, W, C).
    """
    layers = floats(image.reshape(*image.shape[:2], -1))
    smooth = np.empty_like(layers)
    in_bands(_smooth_along, layers.shape[0], layers, floats(vectors), float(sigma), smooth)
    return smooth.reshape(image.shape)


@kernel
def _smooth_along(
    image: Floats, vectors: Floats, sigma: float, smooth: Floats, top: int, bottom: int
) -> None:
    height, width, depth = image.shape
    stride = np.float32(max(1.0, sigma / 8))
    reach = math.ceil(2 * sigma / stride)
    weights = np.exp(-0.5 * (np.arange(reach + 1) * stride / max(sigma, 1e-6)) ** 2).astype(np.float32)
    total = np.zeros(depth, np.float32)
    for row in range(top, bottom):
        for column in range(width):
            for channel in range(depth):
                total[channel] = image[row, column, channel]
            weight = np.float32(1)
            for way in range(2):
                sign = np.float32(1 - 2 * way)
                dx = sign * stride * vectors[row, column, 0]
                dy = sign * stride * vectors[row, column, 1]
                x, y = np.float32(column) + dx, np.float32(row) + dy
                for step in range(1, reach + 1):
                    if x < 0 or y < 0 or x > width - 1 or y > height - 1:
                        break
                    left, upper = int(x), int(y)
                    right, lower = min(left + 1, width - 1), min(upper + 1, height - 1)
                    fx, fy = x - np.float32(left), y - np.float32(upper)
                    for channel in range(depth):
                        above = image[upper, left, channel] * (1 - fx) + image[upper, right, channel] * fx
                        below = image[lower, left, channel] * (1 - fx) + image[lower, right, channel] * fx
                        total[channel] += weights[step] * (above * (1 - fy) + below * fy)
                    weight += weights[step]
                    near_x, near_y = int(x + np.float32(0.5)), int(y + np.float32(0.5))
                    vx, vy = stride * vectors[near_y, near_x, 0], stride * vectors[near_y, near_x, 1]
                    if vx * dx + vy * dy < 0:  # vectors are axes: keep going forwards
                        vx, vy = -vx, -vy
                    dx, dy = vx, vy
                    x, y = x + dx, y + dy
            for channel in range(depth):
                smooth[row, column, channel] = total[channel] / weight
