"""What is in a training set, and what is wrong with it: damaged, small, blurred and doubled pictures.

Everything is found without weights: doubles by the signs of brightness steps in a small copy of each picture
(a difference hash), blur by how much the finest details stand out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from atelier.core.errors import TrainingError
from atelier.training import captions, data
from atelier.training.buckets import Buckets, Size

#: Fewer pictures than this teach their motifs more than a style.
FEW = 10
#: Two pictures are doubles if fewer of the 256 signs differ.
_SAME = 40
#: The side that sharpness is measured at, and the variance of the Laplacian below which a picture is blurred.
_SIDE, _SHARP = 512, 25.0
#: CLIP reads 75 tokens; a token is at least one word or comma.
_WORDS = 75


@dataclass(frozen=True)
class Report:
    """The facts on a training set. Pictures are paths; `folders` are (name, repeats, pictures).

    `sizes` counts pictures by bucket, `epoch` is the number of pictures in an epoch with repeats. `small` are
    pictures that training enlarges, `blurred` those without fine detail, `doubled` groups that show the same,
    mirrored too. `long` have captions beyond what CLIP reads.
    """

    root: Path
    folders: tuple[tuple[str, int, int], ...]
    epoch: int
    sizes: dict[Size, int]
    tags: Counter[str]
    left_out: tuple[Path, ...] = ()
    damaged: tuple[Path, ...] = ()
    small: tuple[Path, ...] = ()
    blurred: tuple[Path, ...] = ()
    doubled: tuple[tuple[Path, ...], ...] = ()
    uncaptioned: tuple[Path, ...] = ()
    unreadable: tuple[str, ...] = ()
    long: tuple[Path, ...] = ()

    @property
    def pictures(self) -> int:
        """The number of pictures, without repeats."""
        return sum(count for _, _, count in self.folders)

    def remarks(self) -> Iterator[str]:
        """A sentence for each problem, the gravest first, with the names of the first pictures."""
        doubled = [one for group in self.doubled for one in group]
        for what, found in (
            ("damaged, to be replaced or removed", self.damaged),
            ("doubles, of which one is enough", doubled),
            ("smaller than their bucket, so that training enlarges them", self.small),
            ("without fine detail, perhaps out of focus", self.blurred),
            ("without a caption of their own", self.uncaptioned),
            ("with more words than the 75 tokens that are read", self.long),
            ("not used, because only pictures in folders N_name are", self.left_out),
        ):
            if found:
                yield f"{what} ({len(found)}): {_names(found)}"
        yield from self.unreadable
        if self.pictures < FEW:
            yield f"{self.pictures} pictures are few for a style: 15 to 50 different ones work better"


def _names(found: list[Path] | tuple[Path, ...]) -> str:
    shown = ", ".join(path.name for path in found[:8])
    return shown + (f", and {len(found) - 8} more" if len(found) > 8 else "")


def of(root: Path, buckets: Buckets, seen: Callable[[int, int], object] = lambda done, total: None) -> Report:
    """The report on a training set; `seen` is told how many pictures of how many are looked at.

    Raises InputError if there are no pictures.
    """
    found = captions.folders(root)
    looks = _Looks(buckets)
    total = sum(len(folder.pictures) for folder in found)
    for folder in found:
        for picture in folder.pictures:
            looks.add(picture, folder)
            seen(looks.count, total)
    return Report(
        root,
        tuple((folder.path.name, folder.repeats, len(folder.pictures)) for folder in found),
        sum(folder.repeats * len(folder.pictures) for folder in found),
        dict(sorted(looks.sizes.items())),
        looks.tags,
        left_out=tuple(captions.left_out(root)),
        damaged=tuple(looks.damaged),
        small=tuple(looks.small),
        blurred=tuple(looks.blurred),
        doubled=tuple(_groups(looks.hashes)),
        uncaptioned=tuple(looks.uncaptioned),
        unreadable=tuple(looks.unreadable),
        long=tuple(looks.long),
    )


@dataclass
class _Looks:
    """What is noted while the pictures are looked at one by one."""

    buckets: Buckets
    count: int = 0
    sizes: Counter[Size] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    hashes: dict[Path, tuple[Bits, Bits]] = field(default_factory=dict)
    damaged: list[Path] = field(default_factory=list)
    small: list[Path] = field(default_factory=list)
    blurred: list[Path] = field(default_factory=list)
    uncaptioned: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    long: list[Path] = field(default_factory=list)

    def add(self, picture: Path, folder: captions.Folder) -> None:
        self.count += 1
        self._read(picture)
        try:
            pixels = data.read_file(picture)
        except TrainingError:
            self.damaged.append(picture)
            return
        place = self.buckets.place((pixels.shape[1], pixels.shape[0]))
        self.sizes[place.bucket] += folder.repeats
        if place.resized[0] > pixels.shape[1]:
            self.small.append(picture)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
        if sharpness(grey) < _SHARP:
            self.blurred.append(picture)
        self.hashes[picture] = _bits(grey), _bits(grey[:, ::-1])

    def _read(self, picture: Path) -> None:
        try:
            text = captions.text_of(picture)
        except TrainingError as error:
            self.unreadable.append(str(error))
            return
        if not text:
            self.uncaptioned.append(picture)
        self.tags.update(tag.lower() for tag in captions.tags(text))
        words = text.split("\n")[0].replace(",", " , ").split()
        if len(words) > _WORDS:
            self.long.append(picture)


def sharpness(grey: npt.NDArray[np.uint8]) -> float:
    """The variance of the Laplacian of a picture (H, W), 0..255, made to a long side of at most 512 pixels.

    >>> sharpness(np.full((64, 64), 128, np.uint8))
    0.0
    """
    scale = min(1.0, _SIDE / max(grey.shape))
    width, height = (max(1, round(side * scale)) for side in (grey.shape[1], grey.shape[0]))
    small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(small, cv2.CV_64F).var())


Bits = npt.NDArray[np.bool_]


def _bits(grey: npt.NDArray[np.uint8]) -> Bits:
    """Whether each place of a 16 x 17 copy is brighter than the one to its right: 256 signs."""
    small = cv2.resize(np.ascontiguousarray(grey), (17, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
    found: Bits = (small[:, :-1] > small[:, 1:]).ravel()
    return found


def _groups(hashes: dict[Path, tuple[Bits, Bits]]) -> list[tuple[Path, ...]]:
    """Groups of pictures of which each shows the same as the first, or its mirror image."""
    left, groups = dict(hashes), []
    while left:
        first = next(iter(left))
        plain = left[first][0]
        same = [path for path, both in left.items() if min(int((plain ^ one).sum()) for one in both) < _SAME]
        group = list(dict.fromkeys([first, *same]))
        if len(group) > 1:
            groups.append(tuple(group))
        for path in group:
            del left[path]
    return groups
