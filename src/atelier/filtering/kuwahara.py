"""Kuwahara filters: the mean of the calmest neighbourhood, which flattens surfaces and keeps edges.

Pictures are float32 (H, W, 3) in 0..1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from atelier.filtering.structure_tensor import directions, structure_tensor
from atelier.maths.compiled import floats, in_bands, kernel

Floats = npt.NDArray[np.float32]

_SECTORS = 8
_ANGLES = 48  # precomputed ellipses: angles in the half turn
_SHAPES = 5  # and elongations


def kuwahara(image: Floats, radius: int) -> Floats:
    """At each pixel, the mean of whichever of its four corner squares has the least colour variance.

    Squares have sides of `radius` + 1 pixels. Straight step edges are preserved exactly. Kuwahara et al.,
    "Processing of RI-angiocardiographic images", 1976.
    """
    height, width = image.shape[:2]
    side = radius + 1
    padded = cv2.copyMakeBorder(image, radius, radius, radius, radius, cv2.BORDER_REPLICATE).astype(
        np.float64
    )
    mean = cv2.boxFilter(padded, -1, (side, side), anchor=(0, 0))
    square = cv2.boxFilter((padded**2).sum(axis=2), -1, (side, side), anchor=(0, 0))
    variance = square - (mean**2).sum(axis=2)
    best, least = np.empty((height, width, 3)), np.full((height, width), np.inf)
    for top in (0, radius):
        for left in (0, radius):
            here = np.s_[top : top + height, left : left + width]
            calmer = variance[here] < least - 1e-12
            best[calmer] = mean[here][calmer]
            least = np.where(calmer, variance[here], least)
    return floats(best)


def anisotropic_kuwahara(
    image: Floats, radius: float, *, sharpness: float = 8.0, sigma: float = 2.0
) -> Floats:
    """A mean of eight overlapping sectors of an ellipse along the edge, weighted by their homogeneity.

    Kyprianidis, Kang & Döllner, "Image and video abstraction by anisotropic Kuwahara filtering", 2009, with
    the polynomial sectors of Kyprianidis et al., "Anisotropic Kuwahara filtering with polynomial weighting
    functions", 2010. Unlike in the papers, ellipses are precomputed for a fixed set of angles and shapes,
    which is many times faster on a CPU. `radius` is in pixels, and `sigma` smooths the structure tensor.
    """
    vectors, anisotropy = directions(structure_tensor(image, sigma))
    angle = np.arctan2(vectors[..., 1], vectors[..., 0]) % math.pi
    turn = np.rint(angle * (_ANGLES / math.pi)).astype(np.int32) % _ANGLES
    shape = np.rint(anisotropy * (_SHAPES - 1)).astype(np.int32).clip(0, _SHAPES - 1)
    starts, offsets, weights = _ellipses(max(radius, 1.0))
    margin = int(np.abs(offsets).max())
    padded = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    result = np.empty_like(image)
    arguments = (floats(padded), turn * _SHAPES + shape, starts, offsets, weights, float(sharpness), result)
    in_bands(_weigh_sectors, image.shape[0], *arguments)
    return result.clip(0, 1)


def _ellipses(radius: float) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Floats]:
    """Offsets (N, 2) as (y, x) and weights (8, N) of all ellipses; ellipse i begins at `starts[i]`."""
    reach = math.ceil(2 * radius)
    y, x = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    starts, offsets, weights = [0], [], []
    for turn in range(_ANGLES):
        cosine, sine = math.cos(math.pi * turn / _ANGLES), math.sin(math.pi * turn / _ANGLES)
        for shape in range(_SHAPES):
            stretch = 1 + shape / (_SHAPES - 1)  # alpha = 1 in the paper: a : b from 1 : 1 to 4 : 1
            u = (x * cosine + y * sine) / (radius * stretch)
            v = (y * cosine - x * sine) / (radius / stretch)
            inside = u**2 + v**2 <= 1
            offsets.append(np.stack([y[inside], x[inside]], axis=1))
            weights.append(_sectors(u[inside], v[inside]))
            starts.append(starts[-1] + len(offsets[-1]))
    return (
        np.array(starts, np.int32),
        np.concatenate(offsets).astype(np.int32),
        floats(np.concatenate(weights, axis=1)),
    )


def _sectors(u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights (8, N) of points in the unit disc: slightly overlapping polynomials times a Gaussian.

    The weights of each sector sum to 1.
    """
    zeta, eta = 1 / 3, 0.84  # as in the paper: sectors overlap by 2 / radius and by pi / 8
    found = []
    for sector in range(_SECTORS):
        turn = 2 * math.pi * sector / _SECTORS
        along = u * math.cos(turn) + v * math.sin(turn)
        aside = v * math.cos(turn) - u * math.sin(turn)
        found.append(np.maximum(0, along + zeta - eta * aside**2) ** 2)
    weights = np.stack(found)
    weights /= np.maximum(weights.sum(axis=0), 1e-12)
    weights *= np.exp(-math.pi * (u**2 + v**2))
    normal: npt.NDArray[np.float64] = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return normal


@kernel
def _weigh_sectors(
    padded: Floats,
    which: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int32],
    weights: Floats,
    sharpness: float,
    result: Floats,
    top: int,
    bottom: int,
) -> None:
    margin = (padded.shape[0] - which.shape[0]) // 2
    most = np.max(starts[1:] - starts[:-1])
    # Gathered first, so that the sums over sectors read memory sequentially.
    reds, greens, blues, squares = (
        np.empty(most, np.float32),
        np.empty(most, np.float32),
        np.empty(most, np.float32),
        np.empty(most, np.float32),
    )
    half = np.float32(sharpness / 2)
    flat = padded.reshape(-1)
    steps = (offsets[:, 0] * padded.shape[1] + offsets[:, 1]) * 3
    for row in range(top, bottom):
        for column in range(which.shape[1]):
            first, last = starts[which[row, column]], starts[which[row, column] + 1]
            here = ((row + margin) * padded.shape[1] + column + margin) * 3
            for index in range(last - first):
                place = here + steps[first + index]
                reds[index], greens[index], blues[index] = flat[place], flat[place + 1], flat[place + 2]
            for index in range(last - first):
                r, g, b = reds[index], greens[index], blues[index]
                squares[index] = r * r + g * g + b * b
            red = green = blue = total = np.float32(0)
            for sector in range(8):
                r = g = b = square = np.float32(0)
                for index in range(last - first):
                    weight = weights[sector, first + index]
                    r += weight * reds[index]
                    g += weight * greens[index]
                    b += weight * blues[index]
                    square += weight * squares[index]
                variance = max(square - (r * r + g * g + b * b), np.float32(0))
                # The standard deviation is in 8-bit levels, as in the paper.
                share = np.float32(1) / (np.float32(1) + (np.float32(255) * math.sqrt(variance)) ** half)
                red, green, blue, total = red + share * r, green + share * g, blue + share * b, total + share
            result[row, column, 0] = red / total
            result[row, column, 1] = green / total
            result[row, column, 2] = blue / total
