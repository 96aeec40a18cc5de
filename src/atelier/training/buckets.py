"""Aspect buckets: pictures of any shape become training pictures of about one area, without distortion.

Each picture gets the bucket whose aspect ratio is nearest to its own; it is resized until it covers the
bucket, and its middle is kept. The sizes and the choice are those of kohya's sd-scripts. Sizes are (width,
height) in pixels.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from atelier.core.errors import OutputError
from atelier.training import captions, data

Size = tuple[int, int]


class Place(NamedTuple):
    """Where a picture goes: its bucket, its size before cropping, and the corner (left, top) of the crop."""

    bucket: Size
    resized: Size
    corner: Size
    #: The bucket's aspect ratio minus the picture's.
    error: float


@dataclass(frozen=True)
class Buckets:
    """The buckets of at most the area of `side`, whose sides are multiples of `step` in `least`..`most`.

    Without `upscale` no picture is enlarged, and buckets follow from the pictures. `single` puts every
    picture into one bucket.

    >>> Buckets((512, 512)).place((1024, 768))[:3]
    ((576, 448), (597, 448), (10, 0))
    """

    side: Size = (512, 512)
    least: int = 256
    most: int = 1024
    step: int = 64
    upscale: bool = True
    single: bool = False

    @classmethod
    def of(
        cls,
        side: int,
        *,
        least: int = 256,
        most: int = 1024,
        step: int = 64,
        upscale: bool = True,
        single: bool = False,
    ) -> Buckets:
        """Buckets of the area of a square, with limits that suit squares beyond the usual ones."""
        step = min(step, side)
        least = least if least < side else max(step, side // 2 // step * step)
        return cls((side, side), least, max(most, side), step, upscale, single)

    @cached_property
    def sizes(self) -> list[Size]:
        """All sizes of buckets, sorted."""
        if self.single:
            return [self.side]
        area = self.side[0] * self.side[1]
        square = self._floored(math.sqrt(area))
        found = {(square, square)}
        for width in range(self.least, self.most + 1, self.step):
            height = min(self.most, self._floored(area // width))
            if height >= self.least:
                found |= {(width, height), (height, width)}
        return sorted(found)

    def place(self, size: Size) -> Place:
        """The place of a picture of this size."""
        bucket, resized = self._enlarged(size) if self.upscale or self.single else self._reduced(size)
        corner = ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2)
        return Place(bucket, resized, corner, bucket[0] / bucket[1] - size[0] / size[1])

    def _enlarged(self, size: Size) -> tuple[Size, Size]:
        """The nearest bucket, and the size that covers it."""
        aspect = size[0] / size[1]
        bucket = (
            size if size in self.sizes else min(self.sizes, key=lambda one: abs(one[0] / one[1] - aspect))
        )
        wide = aspect > bucket[0] / bucket[1]
        scale = bucket[1] / size[1] if wide else bucket[0] / size[0]
        return bucket, (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))

    def _reduced(self, size: Size) -> tuple[Size, Size]:
        """The bucket that fits into the picture, which is made smaller only if its area is too large."""
        resized = self._of_area(size) if size[0] * size[1] > self.side[0] * self.side[1] else size
        width, height = (max(one - one % self.step, min(one, self.step)) for one in resized)
        return (width, height), resized

    def _of_area(self, size: Size) -> Size:
        """The size of the largest area, with the side rounded that changes the aspect ratio less."""
        aspect = size[0] / size[1]
        width = math.sqrt(self.side[0] * self.side[1] * aspect)
        height = self.side[0] * self.side[1] / width
        across, down = self._rounded(width), self._rounded(height)
        by_width = across / max(1, self._rounded(across / aspect))
        by_height = self._rounded(down * aspect) / max(1, down)
        if abs(by_width - aspect) < abs(by_height - aspect):
            return across, int(across / aspect + 0.5)
        return int(down * aspect + 0.5), down

    def _floored(self, value: float) -> int:
        return int(value // self.step) * self.step

    def _rounded(self, value: float) -> int:
        whole = int(value + 0.5)
        return whole - whole % self.step


def cropped(picture: data.Array, place: Place) -> data.Array:
    """The picture (H, W, 3) in its bucket: area averaging makes it smaller, Lanczos larger."""
    height, width = picture.shape[:2]
    smaller = place.resized[0] <= width and place.resized[1] <= height
    if place.resized != (width, height):
        how = cv2.INTER_AREA if smaller else cv2.INTER_LANCZOS4
        picture = cv2.resize(picture, place.resized, interpolation=how).astype(np.uint8, copy=False)
    (left, top), (wide, tall) = place.corner, place.bucket
    return picture[top : top + tall, left : left + wide]


def prepare(root: Path, out: Path, buckets: Buckets) -> Iterator[Path]:
    """Write the pictures of a training set in their buckets, as PNG, with their captions, to a new folder.

    Yields the files as they are made; `out` appears when all are there. Raises OutputError if it exists, and
    TrainingError for a picture that cannot be decoded.
    """
    if out.exists():
        raise OutputError(f"'{out}' exists: choose a new folder")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"the folder '{out.absolute().parent}' does not exist: create it first")
    found = captions.folders(root)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    try:
        for folder in found:
            place = temporary if folder.path == root else temporary / folder.path.name
            place.mkdir(exist_ok=True)
            for picture in folder.pictures:
                yield out / _written(picture, place, buckets).relative_to(temporary)
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _written(picture: Path, folder: Path, buckets: Buckets) -> Path:
    pixels = data.read_file(picture)
    made = cropped(pixels, buckets.place((pixels.shape[1], pixels.shape[0])))
    # Two pictures may differ in their suffix alone.
    path = next(one for one in _free(folder, picture.stem) if not one.exists())
    path.write_bytes(cv2.imencode(".png", made[:, :, ::-1])[1].tobytes())
    if caption := captions.file_of(picture):
        shutil.copyfile(caption, path.with_suffix(caption.suffix))
    return path


def _free(folder: Path, stem: str) -> Iterator[Path]:
    yield folder / f"{stem}.png"
    number = 2
    while True:
        yield folder / f"{stem}-{number}.png"
        number += 1
