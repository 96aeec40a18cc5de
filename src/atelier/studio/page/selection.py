"""Selecting parts of a photo by clicks: superpixels that a click adds, and a cut along the object's edges."""

from __future__ import annotations

import base64
import io
from collections import OrderedDict
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from atelier.core.errors import InputError

if TYPE_CHECKING:
    from atelier.studio.service import Studio

#: Long side of masks in pixels; assets/mask.js has the same number.
SIDE = 1024
#: How far a superpixel may differ from the one clicked, in CIELAB units, to be selected with it.
_ALIKE = 9.0
#: How many photos' superpixels are kept.
_KEPT = 4
_MARK = "data:image/png;base64,"

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]


class Segments:
    """A photo at the size of its masks, in superpixels."""

    def __init__(self, pixels: Bytes) -> None:
        self.pixels = pixels
        self.lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        step = max(8, round(max(pixels.shape[:2]) / 42))
        cut = cv2.ximgproc.createSuperpixelSLIC(self.lab, cv2.ximgproc.SLICO, step)
        cut.iterate(10)
        cut.enforceLabelConnectivity(40)
        self.labels: Labels = np.asarray(cut.getLabels(), np.int32)
        self.count = int(cut.getNumberOfSuperpixels())
        sizes = np.bincount(self.labels.ravel(), minlength=self.count)[:, None]
        sums = [np.bincount(self.labels.ravel(), self.lab[..., c].ravel(), self.count) for c in range(3)]
        self.means = np.stack(sums, axis=1) / sizes
        self._neighbours = _touching(self.labels, self.count)

    def at(self, x: float, y: float) -> Mask:
        """The superpixel at (x, y), in 0..1 from the top left, with those joined to it and alike.

        The part grows over neighbours whose mean colour is near that of the one clicked.
        """
        height, width = self.labels.shape
        first = int(self.labels[min(height - 1, int(y * height)), min(width - 1, int(x * width))])
        found, edge = {first}, [first]
        while edge:
            for other in self._neighbours[edge.pop()] - found:
                if np.linalg.norm(self.means[other] - self.means[first]) < _ALIKE:
                    found.add(other)
                    edge.append(other)
        mask: Mask = np.isin(self.labels, list(found))
        return mask

    def snapped(self, mask: Mask) -> Mask:
        """The mask with its border moved to the edges of the object (GrabCut, Rother et al. 2004).

        What lies well inside stays in, what lies well outside stays out. Raises InputError for a mask that
        is empty or covers everything.
        """
        if not mask.any() or mask.all():
            raise InputError("there is no border to move: select a part of the photo first")
        reach = max(3, round(max(mask.shape) / 40))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
        plane = mask.astype(np.uint8)
        inside, outside = cv2.erode(plane, disc) > 0, cv2.dilate(plane, disc) == 0
        trimap = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        trimap[inside], trimap[outside] = cv2.GC_FGD, cv2.GC_BGD
        cv2.setRNGSeed(0)  # its colour models are drawn at random
        models, picture = (np.zeros((1, 65)), np.zeros((1, 65))), self.pixels[..., ::-1].copy()
        cv2.grabCut(picture, trimap, (0, 0, 0, 0), *models, 3, cv2.GC_INIT_WITH_MASK)
        cut: Mask = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
        return cut if cut.any() else mask


class Selector:
    """Segments of the photos that were used last, by their ids."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._kept: OrderedDict[str, Segments] = OrderedDict()

    def of(self, id: str) -> Segments:
        """The segments of a photo. Raises what `Pictures.open` raises."""
        if id not in self._kept:
            small = self.studio.pictures.open(id, side=SIDE)
            self._kept[id] = Segments((small.pixels.clip(0, 1) * 255).round().astype(np.uint8))
        self._kept.move_to_end(id)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[id]


def read_mask(address: str | None, shape: tuple[int, int]) -> Mask:
    """A mask that the browser sent, (H, W), where it is more than half white. Raises InputError."""
    if not address:
        return np.zeros(shape, bool)
    decoded = cv2.imdecode(np.frombuffer(mask_bytes(address), np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.ndim != 3 or decoded.shape[2] != 4 or max(decoded.shape) > 4 * SIDE:
        raise InputError("the mask could not be read: paint it again")
    alpha = cv2.resize(decoded[..., 3], shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(alpha) > 127


def mask_bytes(address: str) -> bytes:
    """The PNG file in an address that the browser sent. Raises InputError for anything else."""
    if not address.startswith(_MARK) or len(address) > 16 * 2**20:
        raise InputError("the mask could not be read: paint it again")
    try:
        return base64.b64decode(address[len(_MARK) :], validate=True)
    except ValueError:
        raise InputError("the mask could not be read: paint it again") from None


def mask_address(mask: npt.NDArray[np.generic]) -> str:
    """A mask, bool or 0..1, as white on transparent for the browser."""
    from PIL import Image

    alpha = Image.fromarray((mask.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8))
    white = Image.merge("LA", (Image.new("L", alpha.size, 255), alpha))
    file = io.BytesIO()
    white.convert("RGBA").save(file, format="PNG")
    return _MARK + base64.b64encode(file.getvalue()).decode()


def _touching(labels: Labels, count: int) -> list[set[int]]:
    """The neighbours of each superpixel."""
    found: list[set[int]] = [set() for _ in range(count)]
    for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        for one, other in np.unique(np.stack([a[a != b], b[a != b]], axis=1), axis=0):
            found[one].add(int(other))
            found[other].add(int(one))
    return found
