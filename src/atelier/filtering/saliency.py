"""Saliency: how much each region of a picture stands out from the background.

Zhu, Liang, Wei & Sun, "Saliency optimization from robust background detection", 2014. A region belongs to the
background if the area reachable from it through similar colours covers much of the border (boundary
connectivity). Regions that differ from the background are salient, and adjacent regions of similar colour get
similar values.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import minimum_spanning_tree, shortest_path

from atelier.colour.cielab import to_lab
from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_LONG = 200  # long side in pixels of the picture that is segmented
_REGION = 12  # side of its regions in pixels
_COLOUR = 10.0  # CIELAB difference between distinct colours (sigma_clr in the paper)
_NEAR = 0.25  # distance as a fraction of the long side (sigma_spa)
_BORDER = 1.0  # sigma_bndCon
_NOTHING = 2.0  # CIELAB difference below which nothing stands out


def foreground(image: Floats) -> Floats:
    """The saliency (H, W) 0..1 of each pixel of a picture (H, W, 3); 1 everywhere if nothing stands out."""
    height, width = image.shape[:2]
    scale = min(1.0, _LONG / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = floats(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    labels = _regions(small)
    if labels.max() < 3:
        return np.ones((height, width), np.float32)
    saliency = _region_saliency(to_lab(small), labels)
    if saliency is None:
        return np.ones((height, width), np.float32)
    # Closes holes: eyes may be as dark as the background, but belong to the face.
    whole = cv2.morphologyEx(floats(saliency[labels]), cv2.MORPH_CLOSE, _disc(max(size) // 12))
    coarse = cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR)
    radius = max(1, round(max(height, width) / 64))
    return floats(cv2.ximgproc.guidedFilter(image, coarse, radius, 1e-3)).clip(0, 1)


def _disc(side: int) -> npt.NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(side, 1),) * 2).astype(np.uint8)


def _regions(image: Floats) -> Labels:
    """Superpixel labels (H, W), numbered consecutively from 0."""
    height, width = image.shape[:2]
    if min(height, width) < 2 * _REGION:
        rows, columns = np.mgrid[:height, :width] // _REGION
        labels = rows * (width // _REGION + 1) + columns
    else:
        lab = cv2.cvtColor((image * 255).round().astype(np.uint8), cv2.COLOR_RGB2LAB)
        slic = cv2.ximgproc.createSuperpixelSLIC(lab, cv2.ximgproc.SLICO, _REGION)
        slic.iterate(8)
        slic.enforceLabelConnectivity(25)
        labels = slic.getLabels()
    return np.unique(labels, return_inverse=True)[1].reshape(height, width).astype(np.int64)


def _region_saliency(lab: Floats, labels: Labels) -> Matrix | None:
    """The saliency (N,) 0..1 of each region; None if no region stands out."""
    count = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]] / max(labels.shape)
    colours, middles = (
        np.stack([np.bincount(labels.ravel(), plane.ravel(), count) / area for plane in planes], axis=1)
        for planes in (lab.transpose(2, 0, 1), (y, x))
    )
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    adjacent = _adjacency(labels, border)
    background = 1 - np.exp(-(_border_share(distances, adjacent, border) ** 2) / (2 * _BORDER**2))
    near = np.exp(-((middles[:, None] - middles[None]) ** 2).sum(axis=2) / (2 * _NEAR**2))
    weights = near * area * background
    contrast = (distances * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
    if contrast.max() < _NOTHING:
        return None
    return _agreed(background, contrast / contrast.max(), distances, adjacent)


def _adjacency(labels: Labels, border: Labels) -> npt.NDArray[np.bool_]:
    """Which regions are adjacent (N, N). All regions at the border count as adjacent to each other."""
    touch = np.zeros((labels.max() + 1,) * 2, bool)
    for one, other in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        touch[one.ravel(), other.ravel()] = True
    touch |= touch.T
    touch[np.ix_(border, border)] = True
    np.fill_diagonal(touch, False)
    return touch


def _border_share(distances: Matrix, adjacent: npt.NDArray[np.bool_], border: Labels) -> Matrix:
    """Boundary connectivity (N,): similar reachable border over the square root of similar reachable area."""
    # Path costs count only differences above the average that occurs throughout the picture.
    common = minimum_spanning_tree(np.where(adjacent, distances + 1e-6, 0)).data.mean()
    steps = np.where(adjacent, np.maximum(distances - common, 0) + 1e-6, 0)
    reached = np.exp(-(shortest_path(steps, directed=False) ** 2) / (2 * _COLOUR**2))
    share: Matrix = reached[:, border].sum(axis=1) / np.sqrt(reached.sum(axis=1))
    return share


def _agreed(
    background: Matrix, contrast: Matrix, distances: Matrix, adjacent: npt.NDArray[np.bool_]
) -> Matrix:
    """Least-squares saliency (N,): background near 0, contrast near 1, similar neighbours near each other."""
    bond = np.where(adjacent, np.exp(-(distances**2) / (2 * _COLOUR**2)) + 0.1, 0)
    front = contrast * (1 - background)
    system = np.diag(bond.sum(axis=1) + background + front) - bond
    found = np.linalg.solve(system + 1e-9 * np.eye(len(bond)), front)
    low, high = found.min(), found.max()
    agreed: Matrix = (found - low) / max(high - low, 1e-9)
    return agreed
