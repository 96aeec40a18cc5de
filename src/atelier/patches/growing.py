"""Growing a texture pixel by pixel: each new pixel copies a sample pixel with a similar neighbourhood.

Efros & Leung, "Texture synthesis by non-parametric sampling", 1999. The source position of each pixel is
kept, so a texture grown at a small size can be rendered from the full-size sample (`enlarged`).
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats, kernel
from atelier.patches.template_search import differences, drawn, planar

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

_SEED = 1  # the seed is this many pixels on each side of the first one: 3x3, as in the paper
_ROWS = 256  # rows that are enlarged at a time


class Growth:
    """A picture of `size` (height, width) that grows from `sample` (h, w, 3).

    `window` is the side of the compared neighbourhood: odd, and smaller if the sample is. Matches are drawn
    from those with an error of at most 1 + `tolerance` times the least (0.1 in the paper). If `coherence` is
    above 0 and a neighbouring piece continues with at most 1 + `coherence` times the least error, the pixel
    continues that piece; 0 turns this off, as in the paper. With a guide, `goal` (height, width, G) is the
    value that the map `guide` (h, w, G) of the sample should have at each pixel. Its squared difference has
    `guidance` times the weight of the mean squared difference of the neighbouring colours. The same seed
    gives the same picture.
    """

    def __init__(
        self,
        sample: Floats,
        size: tuple[int, int],
        *,
        window: int = 11,
        tolerance: float = 0.1,
        coherence: float = 0.0,
        goal: Floats | None = None,
        guide: Floats | None = None,
        guidance: float = 0.0,
        seed: int = 0,
    ) -> None:
        window = min(window, min(sample.shape[:2]))
        self.window = window - (window + 1) % 2
        if goal is None or guide is None or guidance == 0:
            goal, guide, guidance = _nothing(size), _nothing(sample.shape[:2]), 0.0
        self.planes = planar(np.concatenate([sample, guide], axis=2))
        self.goal, self.share = planar(goal), guidance / (1 + guidance)
        self.tolerance, self.coherence = tolerance, coherence
        self.picture = floats(np.zeros((3, *size)))
        self.source: Integers = np.full((*size, 2), -1, np.int32)
        self.offsets, self.weights = _neighbourhood(self.window)
        self.generator = np.random.default_rng(seed)

    def run(self) -> Iterator[int]:
        """Grows the picture ring by ring, and yields the number of filled pixels after each ring."""
        self._plant()
        while len(ring := self._ring()):
            self._fill(ring)
            yield int((self.source[..., 0] >= 0).sum())

    def image(self) -> Floats:
        """The picture so far (H, W, 3); pixels that are not filled yet are black."""
        return floats(self.picture.transpose(1, 2, 0))

    def _plant(self) -> None:
        """Fills the pixel in the middle and, without a guide, its neighbours from the sample."""
        (height, width), (tall, wide) = self.source.shape[:2], self.planes.shape[1:]
        row, column = height // 2, width // 2
        self._fill(np.array([[row, column]], np.int32))
        home, reach = self.source[row, column].copy(), 0 if self.share else _SEED
        for y in range(max(0, row - reach), min(height, row + reach + 1)):
            for x in range(max(0, column - reach), min(width, column + reach + 1)):
                down, right = home[0] + y - row, home[1] + x - column
                if 0 <= down < tall and 0 <= right < wide:
                    self.source[y, x] = down, right
                    self.picture[:, y, x] = self.planes[:3, down, right]

    def _ring(self) -> Integers:
        """The empty pixels next to filled ones: those with most filled neighbours first, ties at random."""
        known = (self.source[..., 0] >= 0).astype(np.uint8)
        edge = cv2.dilate(known, np.ones((3, 3), np.uint8)) > known
        pixels = np.argwhere(edge).astype(np.int32)
        side = (self.window, self.window)
        counts = cv2.boxFilter(known, cv2.CV_32S, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
        shuffled = self.generator.permutation(len(pixels))
        order = shuffled[np.argsort(-counts[edge][shuffled], kind="stable")]
        return np.ascontiguousarray(pixels[order])

    def _fill(self, pixels: Integers) -> None:
        chances = self.generator.random(len(pixels))
        side = self.window - 1
        errors = np.empty((self.planes.shape[1] - side, self.planes.shape[2] - side), np.float32)
        _fill(
            pixels,
            chances,
            self.planes,
            self.goal,
            self.offsets,
            self.weights,
            self.share,
            self.tolerance,
            self.coherence,
            self.picture,
            self.source,
            errors,
        )


def _nothing(size: tuple[int, ...]) -> Floats:
    """A map with no channels."""
    return np.zeros((*size, 0), np.float32)


def _neighbourhood(window: int) -> tuple[Integers, Floats]:
    """Offsets (N, 2) of a window without its centre, near to far, and their Gaussian weights (N,)."""
    reach = window // 2
    rows, columns = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    square = rows**2 + columns**2
    order = np.argsort(square, kind="stable")[1:]
    sigma = window / 6.4  # as in the paper
    return (
        np.stack([rows, columns], axis=1)[order].astype(np.int32),
        floats(np.exp(-square[order] / (2 * sigma**2))),
    )


@kernel
def _fill(
    pixels: Integers,
    chances: npt.NDArray[np.float64],
    planes: Floats,
    goal: Floats,
    offsets: Integers,
    weights: Floats,
    share: float,
    tolerance: float,
    coherence: float,
    picture: Floats,
    source: Integers,
    errors: Floats,
) -> None:
    """Fills pixels in order, each with a sample pixel that has a similar neighbourhood."""
    reach = (planes.shape[1] - errors.shape[0]) // 2
    most = 3 * len(offsets) + len(goal) + 1
    places = np.zeros((most, 3), np.int32)
    values, shares = np.zeros(most, np.float32), np.zeros(most, np.float32)
    for index in range(len(pixels)):
        row, column = pixels[index, 0], pixels[index, 1]
        count = _terms(row, column, goal, offsets, weights, share, picture, source, places, values, shares)
        for term in range(count):
            places[term, 1] += reach
            places[term, 2] += reach
        limit, row_on, column_on = _going_on(
            row, column, reach, planes, source, places, values, shares, count, errors
        )
        # Only matches that beat the coherent one by the factor 1 + coherence need an exact error.
        bound = float(limit) / (1 + coherence)
        differences(planes, places, values, shares, count, tolerance, bound, errors, 0, errors.shape[0])
        if coherence > 0 and errors.min() >= bound:
            down, right = row_on, column_on
        else:
            down, right = drawn(errors, tolerance, chances[index])
        source[row, column, 0], source[row, column, 1] = down + reach, right + reach
        for channel in range(3):
            picture[channel, row, column] = planes[channel, down + reach, right + reach]


@kernel
def _terms(
    row: int,
    column: int,
    goal: Floats,
    offsets: Integers,
    weights: Floats,
    share: float,
    picture: Floats,
    source: Integers,
    places: Integers,
    values: Floats,
    shares: Floats,
) -> int:
    """Writes the terms of a pixel's template and returns their number.

    The guide contributes one term per channel with weight `share`; the known neighbouring pixels share the
    remaining 1 - `share`.
    """
    height, width = source.shape[:2]
    count, total = 0, np.float32(0)
    for aim in range(len(goal)):
        places[count, 0], places[count, 1], places[count, 2] = 3 + aim, 0, 0
        values[count], shares[count] = goal[aim, row, column], share
        count += 1
    first = count
    for near in range(len(offsets)):
        y, x = row + offsets[near, 0], column + offsets[near, 1]
        if 0 <= y < height and 0 <= x < width and source[y, x, 0] >= 0:
            for channel in range(3):
                places[count, 0] = channel
                places[count, 1], places[count, 2] = offsets[near, 0], offsets[near, 1]
                values[count], shares[count] = picture[channel, y, x], weights[near]
                count += 1
            total += 3 * weights[near]
    for term in range(first, count):
        shares[term] *= (1 - share) / total
    return count


@kernel
def _going_on(
    row: int,
    column: int,
    reach: int,
    planes: Floats,
    source: Integers,
    places: Integers,
    values: Floats,
    shares: Floats,
    count: int,
    errors: Floats,
) -> tuple[np.float32, int, int]:
    """Error, row and column of the best window among those that continue the pieces around a pixel."""
    height, width = source.shape[:2]
    best, best_down, best_right = np.float32(np.inf), 0, 0
    for y in range(max(0, row - 1), min(height, row + 2)):
        for x in range(max(0, column - 1), min(width, column + 2)):
            down, right = source[y, x, 0] + row - y - reach, source[y, x, 1] + column - x - reach
            if source[y, x, 0] < 0 or down < 0 or right < 0:
                continue
            if down >= errors.shape[0] or right >= errors.shape[1]:
                continue
            error = np.float32(0)
            for term in range(count):
                pixel = planes[places[term, 0], down + places[term, 1], right + places[term, 2]]
                error += shares[term] * (pixel - values[term]) ** 2
            if error < best:
                best, best_down, best_right = error, down, right
    return best, best_down, best_right


def enlarged(
    source: Integers, style: Floats, sample: tuple[int, int], size: tuple[int, int], sharpness: float = 1.0
) -> Floats:
    """Renders the field `source` (h, w, 2) at `size` (H, W): a picture (H, W, 3).

    The field holds positions in a sample with the (height, width) `sample`; `style` (H', W', 3) is the same
    sample at full size. Each pixel of the field copies one piece of the style. Adjacent pieces blend over a
    width of 1 / `sharpness` pixels of the field, so the style is copied unchanged where they continue each
    other.
    """
    picture = np.empty((*size, 3), np.float32)
    stretch = np.array(style.shape[:2]) / np.array(sample)
    for top in range(0, size[0], _ROWS):
        rows = np.arange(top, min(top + _ROWS, size[0]))
        picture[rows] = _pieces(source, style, stretch, rows, size, sharpness)
    return picture


def _pieces(
    source: Integers,
    style: Floats,
    stretch: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    size: tuple[int, int],
    sharpness: float,
) -> Floats:
    y, x = (
        (places + 0.5) * few / many - 0.5
        for places, few, many in zip((rows, np.arange(size[1])), source.shape[:2], size, strict=True)
    )
    total = np.zeros((len(rows), size[1], 3), np.float32)
    for below in (0, 1):
        up, rows_share = _side(y, below, source.shape[0], sharpness)
        for beside in (0, 1):
            left, columns_share = _side(x, beside, source.shape[1], sharpness)
            home = source[up][:, left]
            down = (home[..., 0] + 0.5 + (y - up)[:, None]) * stretch[0] - 0.5
            right = (home[..., 1] + 0.5 + (x - left)[None]) * stretch[1] - 0.5
            piece = cv2.remap(
                style, floats(right), floats(down), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
            total += floats(rows_share[:, None] * columns_share[None])[..., None] * piece
    return total


def _side(
    places: npt.NDArray[np.float64], after: int, count: int, sharpness: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The field pixel before or after each position, and its blending weight there."""
    before = np.floor(places)
    share = ((places - before - 0.5) * sharpness + 0.5).clip(0, 1)
    return (before + after).clip(0, count - 1).astype(np.int64), share if after else 1 - share
