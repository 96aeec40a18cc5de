"""Fast nearest-neighbour search for image patches, in the subspace of their principal components.

Elad & Milanfar, "Style transfer via texture synthesis", 2017: patches are projected onto the principal
components that hold 95% of their energy before they are compared. Here the patches of the style lie on a
grid, whose spacing limits their number, and each match is then refined to the best position nearby.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atelier.maths.compiled import floats, kernel
from atelier.maths.neighbours import basis, nearest
from atelier.patches.voting import corners

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

_KEYS = 30_000  # largest number of style patches
_DIRECTIONS = 64  # largest number of principal components
_SAMPLE = 4096  # patches that the components are computed from
_ROWS = 1024  # patches that are extracted at a time


class PatchSpace:
    """The patches of `style` (h, w, C), with side `patch`, in the subspace of their main components.

    `energy` is the fraction of their variance that the subspace keeps.
    """

    def __init__(self, style: Floats, patch: int, *, energy: float = 0.95, seed: int = 0) -> None:
        self.style, self.patch = floats(style), patch
        height, width = (side - patch + 1 for side in style.shape[:2])
        self.stride = max(1, math.ceil(math.sqrt(height * width / _KEYS)))
        self.corners = corners((height + patch - 1, width + patch - 1), patch, self.stride)
        self.mean, self.directions = self._found(energy, seed)
        self.keys = self._projected(self.style, self.corners)
        self.bias = -0.5 * (self.keys**2).sum(1)

    def match(self, picture: Floats, places: Integers) -> Integers:
        """The corners (N, 2) of the style patches nearest to the patches of `picture` at `places` (N, 2)."""
        # |q - k|^2 is smallest where q k - |k|^2 / 2 is largest.
        index, _ = nearest(self._projected(picture, places), self.keys, bias=self.bias)
        matches: Integers = self.corners[index.numpy()].copy()
        if self.stride > 1:
            _settle(floats(picture), self.style, places, matches, self.patch, self.stride // 2)
        return matches

    def _found(self, energy: float, seed: int) -> tuple[Tensor, Tensor]:
        """The mean patch (D,) and the components (D, P) that hold the energy, strongest first."""
        every = np.linspace(0, len(self.corners) - 1, min(_SAMPLE, len(self.corners))).astype(int)
        rows = torch.cat(list(self._cut(self.style, self.corners[every])))
        mean = rows.mean(0)
        rows -= mean
        found = basis(rows, min(_DIRECTIONS, rows.shape[1]), seed=seed)
        shorter = rows @ found.T
        values, turn = torch.linalg.eigh((shorter.T @ shorter).double())
        held = values.flip(0).clamp(min=0).cumsum(0)
        enough = int((held < energy * float(rows.double().pow(2).sum())).sum()) + 1
        return mean, (found.T @ turn.flip(1).float())[:, :enough].contiguous()

    def _projected(self, picture: Floats, places: Integers) -> Tensor:
        offset = self.mean @ self.directions
        return torch.cat([cut @ self.directions - offset for cut in self._cut(picture, places)])

    def _cut(self, picture: Floats, places: Integers) -> Iterator[Tensor]:
        """Yields the patches at `places` as rows (., D), up to 1024 at a time."""
        side = self.patch
        windows = np.lib.stride_tricks.sliding_window_view(picture, (side, side), axis=(0, 1))
        for start in range(0, len(places), _ROWS):
            rows, columns = places[start : start + _ROWS].T
            yield torch.from_numpy(windows[rows, columns].reshape(len(rows), -1))


@kernel
def _settle(
    picture: Floats, style: Floats, places: Integers, matches: Integers, patch: int, reach: int
) -> None:
    """Moves each match to the position within `reach` pixels with the least squared difference."""
    channels = picture.shape[2]
    for index in range(len(places)):
        top, left = places[index, 0], places[index, 1]
        row, column = matches[index, 0], matches[index, 1]
        best = np.float32(np.inf)
        for down in range(max(0, row - reach), min(style.shape[0] - patch, row + reach) + 1):
            for right in range(max(0, column - reach), min(style.shape[1] - patch, column + reach) + 1):
                error = np.float32(0)
                for line in range(patch):
                    mine, other = picture[top + line], style[down + line]
                    part = np.float32(0)
                    for step in range(patch):
                        for channel in range(channels):
                            difference = mine[left + step, channel] - other[right + step, channel]
                            part += difference * difference
                    error += part
                    if error > best:
                        break
                if error < best:
                    best = error
                    matches[index, 0], matches[index, 1] = down, right
