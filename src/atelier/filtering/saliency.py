"""What stands out of a picture: the regions that the border does not lead to.

Zhu, Liang, Wei & Sun, "Saliency optimization from robust background detection", 2014: a region belongs to
the background by how much of the border belongs to all that can be reached from it through similar colours
(boundary connectivity); what differs from the background stands out, and neighbours of one colour agree.
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

_LONG = 200  # side at which regions are found
_REGION = 12  # side of a region there
_COLOUR = 10.0  # CIELAB difference that counts as another colour (sigma_clr of the paper)
_NEAR = 0.25  # of the picture (sigma_spa)
_BORDER = 1.0  # sigma_bndCon
_NOTHING = 2.0  # CIELAB difference below which nothing stands out


def foreground(image: Floats) -> Floats:
    """How much each pixel of (H, W, 3) stands out, (H, W) in 0..1; 1 everywhere where nothing does."""
    height, width = image.shape[:2]
    scale = min(1.0, _LONG / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = floats(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    labels = _regions(small)
    if labels.max() < 3:
        return np.ones((height, width), np.float32)
    standing = _standing_out(to_lab(small), labels)
    if standing is None:
        return np.ones((height, width), np.float32)
    # Eyes in a face are as dark as what is behind it, and belong to the face all the same.
    whole = cv2.morphologyEx(floats(standing[labels]), cv2.MORPH_CLOSE, _disc(max(size) // 12))
    coarse = cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR)
    radius = max(1, round(max(height, width) / 64))
    return floats(cv2.ximgproc.guidedFilter(image, coarse, radius, 1e-3)).clip(0, 1)


def _disc(side: int) -> npt.NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(side, 1),) * 2).astype(np.uint8)


def _regions(image: Floats) -> Labels:
    """Superpixels, numbered from 0 without gaps."""
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


def _standing_out(lab: Floats, labels: Labels) -> Matrix | None:
    """How much each region stands out, 0..1; None where none does."""
    count = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]] / max(labels.shape)
    colours, middles = (
        np.stack([np.bincount(labels.ravel(), plane.ravel(), count) / area for plane in planes], axis=1)
        for planes in (lab.transpose(2, 0, 1), (y, x))
    )
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    beside = _beside(labels, border)
    background = 1 - np.exp(-(_border_share(apart, beside, border) ** 2) / (2 * _BORDER**2))
    near = np.exp(-((middles[:, None] - middles[None]) ** 2).sum(axis=2) / (2 * _NEAR**2))
    weights = near * area * background
    contrast = (apart * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
    if contrast.max() < _NOTHING:
        return None
    return _agreed(background, contrast / contrast.max(), apart, beside)


def _beside(labels: Labels, border: Labels) -> npt.NDArray[np.bool_]:
    """Which regions touch; those at the border all do, since what is beyond them is one."""
    touch = np.zeros((labels.max() + 1,) * 2, bool)
    for one, other in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        touch[one.ravel(), other.ravel()] = True
    touch |= touch.T
    touch[np.ix_(border, border)] = True
    np.fill_diagonal(touch, False)
    return touch


def _border_share(apart: Matrix, beside: npt.NDArray[np.bool_], border: Labels) -> Matrix:
    """How much of the border a region's surroundings of one colour have, against the root of their area."""
    # A way's cost is what it crosses beyond the differences that are everywhere in the picture.
    common = minimum_spanning_tree(np.where(beside, apart + 1e-6, 0)).data.mean()
    steps = np.where(beside, np.maximum(apart - common, 0) + 1e-6, 0)
    reached = np.exp(-(shortest_path(steps, directed=False) ** 2) / (2 * _COLOUR**2))
    share: Matrix = reached[:, border].sum(axis=1) / np.sqrt(reached.sum(axis=1))
    return share


def _agreed(background: Matrix, contrast: Matrix, apart: Matrix, beside: npt.NDArray[np.bool_]) -> Matrix:
    """Least squares: background to 0, contrast to 1, neighbours of one colour alike."""
    bond = np.where(beside, np.exp(-(apart**2) / (2 * _COLOUR**2)) + 0.1, 0)
    front = contrast * (1 - background)
    system = np.diag(bond.sum(axis=1) + background + front) - bond
    found = np.linalg.solve(system + 1e-9 * np.eye(len(bond)), front)
    low, high = found.min(), found.max()
    agreed: Matrix = (found - low) / max(high - low, 1e-9)
    return agreed
