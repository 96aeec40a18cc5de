"""Training pictures: shards of JPEG files, folders, and random crops of them.

Every draw depends only on a generator that the caller seeds from the step, so a resumed run sees
the same pictures as an uninterrupted one.
"""

from __future__ import annotations

import glob
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atelier.core.errors import TrainingError

Array = npt.NDArray[np.uint8]
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Labelled:
    """Pictures as RGB uint8 (H, W, 3), of one size or many, with a class each."""

    pictures: Sequence[Array] | Array
    labels: npt.NDArray[np.int64]
    classes: int

    def __len__(self) -> int:
        return len(self.labels)


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that paths and glob patterns match, sorted; TrainingError for a pattern without a match."""
    files: list[Path] = []
    for pattern in patterns:
        found = sorted(Path(name) for name in glob.glob(pattern))  # noqa: PTH207 - patterns may be absolute
        if not found:
            raise TrainingError(
                f"no training data at '{pattern}': give a shard (.npz), a folder, a picture or a pattern"
            )
        files += found
    return files


def decode(data: Array, where: str) -> Array:
    """The picture in a file's bytes, RGB uint8. Raises TrainingError, which names `where` it comes from."""
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        picture = None
    if picture is None:
        raise TrainingError(f"{where} is not a picture that can be decoded: remove or replace it")
    return np.ascontiguousarray(picture[:, :, ::-1]).astype(np.uint8, copy=False)


def shrink(picture: Array, short_side: int | None) -> Array:
    """A picture whose short side is at most `short_side` pixels."""
    side = min(picture.shape[:2])
    if short_side is None or side <= short_side:
        return picture
    width, height = (round(n * short_side / side) for n in (picture.shape[1], picture.shape[0]))
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def open_shard(path: Path) -> tuple[Array, list[int], npt.NDArray[np.int64] | None]:
    """The bytes of a .npz shard's files (`jpeg`), where each starts and the last ends, perhaps labels.

    Raises TrainingError for another layout.
    """
    try:
        # Opened here, since NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as shard:
            data, offset = shard["jpeg"], shard["offset"].astype(np.int64)
            labels = shard["label"].astype(np.int64) if "label" in shard.files else None
    except _UNREADABLE as error:
        raise TrainingError(
            f"{path} is not a shard: it needs the arrays 'jpeg' and 'offset' ({error})"
        ) from error
    _check_shard(path, data, offset, labels)
    return data, offset.tolist(), labels


def read_shard(
    path: Path, *, short_side: int | None = None
) -> tuple[list[Array], npt.NDArray[np.int64] | None]:
    """Pictures and labels of one shard; `short_side` shrinks larger pictures. Raises as `open_shard`."""
    data, offset, labels = open_shard(path)
    pictures = [
        shrink(decode(data[start:end], f"picture {number} of {path}"), short_side)
        for number, (start, end) in enumerate(pairwise(offset))
    ]
    return pictures, labels


# What NumPy raises for damaged files, other files, and archives of something else.
_UNREADABLE = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def _check_shard(
    path: Path, data: Array, offset: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None
) -> None:
    """Raises TrainingError unless the arrays of a shard fit each other."""
    if data.dtype != np.uint8 or data.ndim != 1 or offset.ndim != 1 or len(offset) < 2:
        raise TrainingError(
            f"{path} is not a shard: 'jpeg' must be bytes, and 'offset' where each picture starts and ends"
        )
    if offset[0] < 0 or offset[-1] > len(data) or (np.diff(offset) <= 0).any():
        raise TrainingError(f"{path} is damaged: its offsets do not lie inside its {len(data)} bytes")
    if labels is not None and (labels.shape != (len(offset) - 1,) or labels.min() < 0):
        raise TrainingError(
            f"{path} has {labels.size} labels for {len(offset) - 1} pictures: each needs one, counted from 0"
        )


def read_shards(paths: Sequence[Path]) -> Labelled:
    """Labelled shards of pictures that all have one size, as a single array (N, H, W, 3)."""
    pictures: list[Array] = []
    labels: list[npt.NDArray[np.int64]] = []
    for path in paths:
        some, their = read_shard(path)
        if their is None:
            raise TrainingError(f"{path} has no labels, which a classifier needs")
        pictures += some
        labels.append(their)
    if not pictures:
        raise TrainingError("no shards of labelled pictures were given, which a classifier needs")
    if len({picture.shape for picture in pictures}) != 1:
        raise TrainingError("these shards hold pictures of several sizes: a classifier needs one size")
    joined = np.concatenate(labels)
    return Labelled(np.stack(pictures), joined, int(joined.max()) + 1)


def in_folder(folder: Path) -> list[Path]:
    """Every picture file below a folder, sorted. Raises TrainingError where there is none."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURES)
    if not files:
        raise TrainingError(f"no pictures below {folder}: allowed are {', '.join(sorted(PICTURES))}")
    return files


def read_folder(folder: Path, *, short_side: int | None = None) -> list[Array]:
    """Every picture below a folder, sorted by path, RGB uint8."""
    return [shrink(read_file(file), short_side) for file in in_folder(folder)]


def read_file(file: Path) -> Array:
    """One picture, RGB uint8. Raises TrainingError where it cannot be read."""
    return decode(_bytes(file), str(file))


def _bytes(file: Path) -> Array:
    try:
        return np.fromfile(file, np.uint8)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read ({error.strerror}): remove or replace it") from error


def read_styles(paintings: Path, photos: Sequence[Path], *, short_side: int) -> Labelled:
    """One class per folder of paintings, and one more for photographs."""
    pictures: list[Array] = []
    labels: list[int] = []
    folders = (
        sorted(folder for folder in paintings.iterdir() if folder.is_dir()) if paintings.is_dir() else []
    )
    if not folders:
        raise TrainingError(f"{paintings} needs one sub-folder of pictures per style")
    for label, folder in enumerate(folders):
        some = read_folder(folder, short_side=short_side)
        pictures += some
        labels += [label] * len(some)
    for path in photos:
        some = (
            read_folder(path, short_side=short_side)
            if path.is_dir()
            else read_shard(path, short_side=short_side)[0]
        )
        pictures += some
        labels += [len(folders)] * len(some)
    return Labelled(pictures, np.asarray(labels), len(folders) + bool(photos))


def random_crops(
    pictures: Sequence[Array] | Array,
    indices: Sequence[int],
    size: int,
    smallest: float,
    generator: torch.Generator,
    *,
    flip: bool = True,
    stretch: float = 4 / 3,
) -> Tensor:
    """Square crops (B, 3, size, size), uint8, of the pictures at `indices`; `flip` mirrors half of them.

    A crop's side is between `smallest` of the picture's short side and all of it, log-uniform, and its
    aspect ratio at most `stretch`; resized by area averaging where it shrinks, cubic where it grows.
    """
    out = np.empty((len(indices), size, size, 3), np.uint8)
    draws = torch.rand((len(indices), 5), generator=generator).tolist()
    for row, (index, (zoom, shape, top, left, mirrored)) in enumerate(zip(indices, draws, strict=True)):
        picture = pictures[index]
        height, width = picture.shape[:2]
        side, aspect = min(height, width) * smallest**zoom, stretch ** (shape - 0.5)
        tall, wide = max(1, min(height, round(side * aspect))), max(1, min(width, round(side / aspect)))
        y, x = int(top * (height - tall + 1)), int(left * (width - wide + 1))
        crop = picture[y : y + tall, x : x + wide]
        how = cv2.INTER_AREA if side >= size else cv2.INTER_CUBIC
        crop = cv2.resize(crop, (size, size), interpolation=how)
        out[row] = crop[:, ::-1] if flip and mirrored < 0.5 else crop
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def jitter(images: Tensor, strength: float, blur: float, generator: torch.Generator) -> Tensor:
    """Images (B, 3, H, W) in 0..1 with brightness, contrast, saturation and colour cast changed.

    Each factor is within `strength` of 1; a share `blur` of the batch is softened by a 3x3 or 5x5
    binomial kernel, because large pictures are softer than small ones.
    """
    count = images.shape[0]
    draw = 1 + strength * (2 * torch.rand((3, count, 1, 1, 1), generator=generator) - 1)
    cast = 1 + 0.5 * strength * (2 * torch.rand((count, 3, 1, 1), generator=generator) - 1)
    grey = images.mean(1, keepdim=True)
    images = grey + draw[0] * (images - grey)
    middle = images.mean((1, 2, 3), keepdim=True)
    images = (middle * draw[1] + draw[2] * (images - middle)) * cast
    soft = torch.rand((count,), generator=generator) < blur
    if soft.any():
        for _ in range(1 + int(torch.randint(2, (), generator=generator))):
            images[soft] = _blur(images[soft])
    return images.clamp(0, 1)


def _blur(images: Tensor) -> Tensor:
    """(1, 2, 1) / 4 along both axes, by sums: a convolution would run in the network's half precision."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4


def mix(*numbers: int) -> int:
    """One seed made of several numbers (a 61-bit polynomial hash)."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**61 - 1)
    return seed
