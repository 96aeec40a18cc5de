"""Training pictures: shards of JPEG files, folders, and random crops.

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
    """Pictures as RGB uint8 (H, W, 3), of one size or of several, with class labels."""

    pictures: Sequence[Array] | Array
    labels: npt.NDArray[np.int64]
    classes: int

    def __len__(self) -> int:
        return len(self.labels)


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that match paths and glob patterns, sorted. Raises TrainingError if one has no match."""
    files: list[Path] = []
    for pattern in patterns:
        found = sorted(Path(name) for name in glob.glob(pattern))  # noqa: PTH207 - patterns may be absolute
        if not found:
            raise TrainingError(
                f"no training data at '{pattern}': use a shard (.npz), a folder, a picture or a glob pattern"
            )
        files += found
    return files


def decode(data: Array, where: str) -> Array:
    """Decode a file's bytes to RGB uint8. Raises TrainingError, naming `where` the bytes come from."""
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        picture = None
    if picture is None:
        raise TrainingError(f"{where} cannot be decoded as a picture: remove or replace it")
    return np.ascontiguousarray(picture[:, :, ::-1]).astype(np.uint8, copy=False)


def shrink(picture: Array, short_side: int | None) -> Array:
    """The picture, scaled down so that its short side is at most `short_side` pixels."""
    side = min(picture.shape[:2])
    if short_side is None or side <= short_side:
        return picture
    width, height = (round(n * short_side / side) for n in (picture.shape[1], picture.shape[0]))
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def open_shard(path: Path) -> tuple[Array, list[int], npt.NDArray[np.int64] | None]:
    """The contents of a .npz shard: the bytes of its files, their N + 1 offsets, and the labels, if any.

    Raises TrainingError for any other layout.
    """
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as shard:
            data, offset = shard["jpeg"], shard["offset"].astype(np.int64)
            labels = shard["label"].astype(np.int64) if "label" in shard.files else None
    except _UNREADABLE as error:
        raise TrainingError(
            f"{path} is not a shard: a shard has the arrays 'jpeg' and 'offset' ({error})"
        ) from error
    _check_shard(path, data, offset, labels)
    return data, offset.tolist(), labels


def read_shard(
    path: Path, *, short_side: int | None = None
) -> tuple[list[Array], npt.NDArray[np.int64] | None]:
    """The pictures and labels of a shard; `short_side` shrinks larger pictures. Raises as `open_shard`."""
    data, offset, labels = open_shard(path)
    pictures = [
        shrink(decode(data[start:end], f"picture {number} of {path}"), short_side)
        for number, (start, end) in enumerate(pairwise(offset))
    ]
    return pictures, labels


# Raised by NumPy for damaged files, other files, and other archives.
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
    """Raise TrainingError unless the arrays of a shard are consistent."""
    if data.dtype != np.uint8 or data.ndim != 1 or offset.ndim != 1 or len(offset) < 2:
        raise TrainingError(
            f"{path} is not a shard: 'jpeg' must hold bytes, and 'offset' the start and end of each picture"
        )
    if offset[0] < 0 or offset[-1] > len(data) or (np.diff(offset) <= 0).any():
        raise TrainingError(f"{path} is damaged: its offsets do not fit its {len(data)} bytes")
    if labels is not None and (labels.shape != (len(offset) - 1,) or labels.min() < 0):
        raise TrainingError(
            f"{path} has {labels.size} labels for {len(offset) - 1} pictures: "
            "each picture needs one label, counted from 0"
        )


def read_shards(paths: Sequence[Path]) -> Labelled:
    """Read labelled shards of pictures of one size into a single array (N, H, W, 3)."""
    pictures: list[Array] = []
    labels: list[npt.NDArray[np.int64]] = []
    for path in paths:
        some, their = read_shard(path)
        if their is None:
            raise TrainingError(f"{path} has no labels: a classifier needs labelled shards")
        pictures += some
        labels.append(their)
    if not pictures:
        raise TrainingError("no shards given: a classifier needs labelled shards")
    if len({picture.shape for picture in pictures}) != 1:
        raise TrainingError("the shards hold pictures of several sizes: a classifier needs a single size")
    joined = np.concatenate(labels)
    return Labelled(np.stack(pictures), joined, int(joined.max()) + 1)


def in_folder(folder: Path) -> list[Path]:
    """All picture files below a folder, sorted. Raises TrainingError if there are none."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURES)
    if not files:
        raise TrainingError(f"no pictures below {folder}: use {', '.join(sorted(PICTURES))}")
    return files


def read_folder(folder: Path, *, short_side: int | None = None) -> list[Array]:
    """All pictures below a folder, sorted by path, RGB uint8."""
    return [shrink(read_file(file), short_side) for file in in_folder(folder)]


def read_file(file: Path) -> Array:
    """Read a picture as RGB uint8. Raises TrainingError if it cannot be read."""
    return decode(_bytes(file), str(file))


def _bytes(file: Path) -> Array:
    try:
        return np.fromfile(file, np.uint8)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read ({error.strerror}): remove or replace it") from error


def read_styles(paintings: Path, photos: Sequence[Path], *, short_side: int) -> Labelled:
    """Read one class per folder of paintings, and one more for photographs if there are any."""
    pictures: list[Array] = []
    labels: list[int] = []
    folders = (
        sorted(folder for folder in paintings.iterdir() if folder.is_dir()) if paintings.is_dir() else []
    )
    if not folders:
        raise TrainingError(f"{paintings} must contain one subfolder of pictures for each style")
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

    The size of a crop is log-uniform between `smallest` and 1 times the picture's short side, and its aspect
    ratio is between 1 / `stretch` and `stretch`. Crops are scaled down by area averaging and up by cubic
    interpolation.
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


def same_crops(
    pictures: Sequence[Array],
    size: int,
    smallest: float,
    generator: torch.Generator,
    *,
    flip: bool = True,
    stretch: float = 4 / 3,
) -> list[Tensor]:
    """The same crop (3, size, size), uint8, of each of several pictures of one size; see `random_crops`."""
    before = generator.get_state()
    crops = []
    for picture in pictures:
        generator.set_state(before)
        crops.append(random_crops([picture], [0], size, smallest, generator, flip=flip, stretch=stretch)[0])
    return crops


def jitter(images: Tensor, strength: float, blur: float, generator: torch.Generator) -> Tensor:
    """Randomly change brightness, contrast, saturation and colour cast of images (B, 3, H, W) in 0..1.

    Each factor is within `strength` of 1. A fraction `blur` of the batch is blurred by a 3x3 or 5x5
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
    """Filter with (1, 2, 1) / 4 along both axes, by sums: autocast would run a convolution in bfloat16."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4


def mix(*numbers: int) -> int:
    """Combine several numbers into one seed (a 61-bit polynomial hash)."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**61 - 1)
    return seed
