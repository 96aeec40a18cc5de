"""Data sets for training methods: found and checked up front, decoded on demand.

Each row of a batch is drawn by a generator seeded only by the run's seed, the step and the row. The draws do
not depend on the number of processes and workers, or on earlier steps.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from atelier.core.errors import TrainingError, first_line
from atelier.images import READABLE, Picture, fit
from atelier.methods.trainable import DataInfo
from atelier.training import data

#: Decoded pictures are shrunk to this short side. Paintings stay larger: their crops zoom in further.
_SHORT_SIDE, _PAINTING_SHORT_SIDE = 512, 640
_MOST_STYLES = 256
#: Paintings of other styles for each one.
_OTHERS = 3


@dataclass(frozen=True)
class Entry:
    """A picture: a file, or the byte range from `start` to `end` of a shard."""

    path: Path
    start: int = 0
    end: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.end is None else f"the picture at byte {self.start} of {self.path}"


@dataclass(frozen=True)
class Source:
    """Pictures of one kind, and how to crop them."""

    entries: tuple[Entry, ...]
    short_side: int
    zoom: float
    flip: bool = True
    stretch: float = 4 / 3
    captions: tuple[str, ...] = ()
    #: Masks of the objects of whole pictures, which are not cropped.
    masks: tuple[Path, ...] = ()
    whole: bool = False

    def crop(self, index: int, side: int, decoder: Decoder, generator: torch.Generator) -> Tensor:
        """A random crop (3, S, S), uint8, of a picture, or the whole of it stretched to a square."""
        picture = decoder(self.entries[index], self.short_side)
        if self.whole:
            return _square(picture, side, cv2.INTER_AREA)
        crop: Tensor
        (crop,) = data.random_crops(
            *([picture], [0], side, self.zoom, generator), flip=self.flip, stretch=self.stretch
        )
        return crop

    def split(self, held_back: int) -> tuple[Source, Source]:
        """The training pictures, and `held_back` evenly spaced pictures for evaluation."""
        count = len(self.entries)
        if count <= held_back:
            raise TrainingError(
                f"{count} pictures are too few to hold out {held_back} for evaluation: "
                "provide more pictures or lower held_back"
            )
        judged = {round(index * count / held_back) for index in range(held_back)}
        return (
            self.only([index for index in range(count) if index not in judged]),
            self.only(sorted(judged)),
        )

    def only(self, rows: Sequence[int]) -> Source:
        """The pictures at `rows`, with their captions."""
        entries, captions, masks = (
            tuple(beside[row] for row in rows) if beside else ()
            for beside in (self.entries, self.captions, self.masks)
        )
        return replace(self, entries=entries, captions=captions, masks=masks)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stream:
    """An item of the batch: pictures from one source, or labelled pictures from several sources."""

    name: str
    sources: tuple[Source, ...]
    label: str = ""

    def split(self, held_back: int) -> tuple[Stream, Stream]:
        """The training stream and the evaluation stream."""
        parts = [source.split(held_back) for source in self.sources]
        learn, judge = zip(*parts, strict=True)
        return replace(self, sources=learn), replace(self, sources=judge)

    def drawn(self, crop: int, decoder: Decoder, generator: torch.Generator) -> dict[str, Any]:
        """A crop (3, S, S) uint8, with its label, caption and mask if there are any."""
        number = _random(len(self.sources), generator)
        source = self.sources[number]
        index = _random(len(source.entries), generator)
        found: dict[str, Any] = {self.name: source.crop(index, crop, decoder, generator)}
        if self.label:
            found[self.label] = number
        if source.captions:
            found["captions"] = source.captions[index]
        if source.masks:
            found["masks"] = _object(source.masks[index], crop, generator)
        return found


class StyleGroups(Stream):
    """Paintings, one source a style; each comes with three of other styles."""

    def drawn(self, crop: int, decoder: Decoder, generator: torch.Generator) -> dict[str, Any]:
        first, *others = torch.randperm(len(self.sources), generator=generator).tolist()
        numbers = [first, *(others[place % len(others)] for place in range(_OTHERS))]
        pictures = [
            source.crop(_random(len(source.entries), generator), crop, decoder, generator)
            for source in (self.sources[number] for number in numbers)
        ]
        return {self.name: pictures[0], "others": torch.stack(pictures[1:])}


@dataclass(frozen=True)
class Pairs(Stream):
    """A target with its caption, and a reference of the same style, of the same content, or itself.

    The first `styles` of the sources hold one style each, the others one content each.
    """

    styles: int = 0
    shares: tuple[float, ...] = (1.0, 1.0, 1.0)

    def drawn(self, crop: int, decoder: Decoder, generator: torch.Generator) -> dict[str, Any]:
        relation = int(torch.multinomial(torch.tensor(self.shares), 1, generator=generator))
        rows = {0: self.sources[: self.styles], 1: self.sources[self.styles :]}.get(relation, self.sources)
        source = rows[_random(len(rows), generator)]
        first, *others = torch.randperm(len(source.entries), generator=generator).tolist()
        second = others[0] if others and relation < 2 else first
        target, reference = (source.crop(row, crop, decoder, generator) for row in (first, second))
        return {
            "targets": target,
            "references": target if second == first else reference,
            "captions": source.captions[first],
            "relation": relation,
        }


@dataclass(frozen=True)
class DataSet:
    """The streams for training and for evaluation (empty if nothing is held out), and facts on the data."""

    learn: tuple[Stream, ...]
    judge: tuple[Stream, ...]
    info: DataInfo = field(default_factory=DataInfo)

    def __str__(self) -> str:
        """The number of pictures by name, for the terminal."""
        counts = []
        for stream in self.learn:
            sizes = [len(source.entries) for source in stream.sources]
            if stream.label:
                counts += [f"{size} {name}" for size, name in zip(sizes, self.info.domains, strict=True)]
            else:
                counts.append(f"{sum(sizes)} {stream.name}")
        if self.info.styles:
            counts.append(f"{len(self.info.styles)} {'style' if len(self.info.styles) == 1 else 'styles'}")
        held = sum(len(source.entries) for stream in self.judge for source in stream.sources)
        return ", ".join(counts) + (f"; {held} held out for evaluation" if held else "")


# finding and checking


def read(kind: str, settings: Any) -> DataSet:
    """Read the data set of a `DataKind`. Raises TrainingError if the data cannot be used."""
    streams, info = _READERS[kind](settings)
    if not settings.held_back:
        return DataSet(streams, (), info)
    parts = [stream.split(settings.held_back) for stream in streams]
    return DataSet(tuple(part[0] for part in parts), tuple(part[1] for part in parts), info)


Read = tuple[tuple[Stream, ...], DataInfo]


def _pairs(settings: Any) -> Read:
    photos = Source(entries(settings.photos), _SHORT_SIDE, settings.photo_zoom)
    paintings = Source(entries(settings.paintings), _PAINTING_SHORT_SIDE, settings.painting_zoom)
    return (Stream("photos", (photos,)), Stream("paintings", (paintings,))), DataInfo()


def _styles(settings: Any) -> Read:
    photos = Source(entries(settings.photos), _SHORT_SIDE, settings.photo_zoom)
    styles = read_styles(settings.paintings, settings.style_side)
    return (Stream("photos", (photos,)),), DataInfo(styles)


def _one_style(settings: Any) -> Read:
    styles = read_styles((settings.style,), settings.style_side)
    if len(styles) > 1:
        raise TrainingError(f"{settings.style} has {len(styles)} pictures: this method learns a single style")
    if not settings.photos:  # only where the method allows it
        return (), DataInfo(styles)
    photos = Source(entries(settings.photos), _SHORT_SIDE, settings.photo_zoom)
    return (Stream("photos", (photos,)),), DataInfo(styles)


def _pictures(settings: Any) -> Read:
    source = Source(entries(settings.pictures), _SHORT_SIDE, settings.zoom)
    return (Stream("pictures", (source,)),), DataInfo()


def _domains(settings: Any) -> Read:
    a, b = (Source(entries(names), _SHORT_SIDE, settings.zoom) for names in (settings.a, settings.b))
    return (Stream("a", (a,)), Stream("b", (b,))), DataInfo(domains=("a", "b"))


def _labelled(settings: Any) -> Read:
    folders: dict[str, Path] = {}
    for given in settings.domain:
        name, equals, folder = given.partition("=")
        if not (name and equals and folder):
            raise TrainingError(
                f"'{given}' is not a domain: use NAME=FOLDER, for example winter=photos/winter"
            )
        if name in folders:
            raise TrainingError(f"two domains are named '{name}': give each domain its own name")
        folders[name] = Path(folder)
    if len(folders) < 2:
        raise TrainingError("at least two domains are needed: repeat --domain NAME=FOLDER for each")
    sources = tuple(Source(entries([str(path)]), _SHORT_SIDE, settings.zoom) for path in folders.values())
    return (Stream("pictures", sources, label="domain"),), DataInfo(domains=tuple(folders))


def _captioned(settings: Any) -> Read:
    found = entries(settings.pictures)
    if shards := [entry.path for entry in found if entry.end is not None]:
        raise TrainingError(f"{shards[0]} is a shard, which has no captions: use a folder of pictures")
    texts = tuple(_caption(entry.path) for entry in found)
    # The caption describes the whole picture, so crops keep the aspect ratio and, by default, the full side.
    source = Source(found, max(_SHORT_SIDE, settings.crop), settings.zoom, settings.flip, 1.0, texts)
    return (Stream("pictures", (source,)),), DataInfo()


def _composites(settings: Any) -> Read:
    found, folder = entries(settings.photos), Path(settings.masks)
    masks = tuple(folder / f"{entry.path.stem}.png" for entry in found)
    if absent := [path for path in masks if not path.is_file()]:
        raise TrainingError(f"there is no mask {absent[0]}: each photo needs one of its name in {folder}")
    photos = Source(found, _whole(settings), 1.0, masks=masks, whole=True)
    styles = tuple(Source(rows, _whole(settings), 1.0, whole=True) for rows in _groups(settings.paintings))
    if len(styles) < 2:
        raise TrainingError(f"{settings.paintings} has one style: use a sub-folder for each of several")
    return (Stream("photos", (photos,)), StyleGroups("paintings", styles)), DataInfo()


def _references(settings: Any) -> Read:
    groups = [_groups(folder) for folder in (settings.same_style, settings.same_content)]
    for rows in (row for group in groups for row in group if len(row) < 2):
        raise TrainingError(f"{rows[0].path.parent} has one picture: a pair needs two")
    if min(settings.shares) < 0 or not sum(settings.shares):
        raise TrainingError("the shares must not be negative, and one of them must be above 0")
    sources = tuple(
        Source(rows, _whole(settings), 1.0, False, 1.0, tuple(_caption(one.path) for one in rows))
        for group in groups
        for rows in group
    )
    return (Pairs("targets", sources, styles=len(groups[0]), shares=settings.shares),), DataInfo()


def _whole(settings: Any) -> int:
    return max(_SHORT_SIDE, int(settings.crop))


def _groups(folder: str) -> list[tuple[Entry, ...]]:
    """The pictures of each sub-folder. Raises TrainingError if there is none."""
    path = Path(folder)
    inside = sorted(one for one in path.iterdir() if one.is_dir()) if path.is_dir() else []
    if not inside:
        raise TrainingError(f"{folder} must contain sub-folders of pictures")
    return [entries([str(one)]) for one in inside]


_READERS = {
    "pairs": _pairs,
    "styles": _styles,
    "one_style": _one_style,
    "pictures": _pictures,
    "domains": _domains,
    "labelled": _labelled,
    "captioned": _captioned,
    "composites": _composites,
    "references": _references,
}


def _caption(picture: Path) -> str:
    path = picture.with_suffix(".txt")
    try:
        text = " ".join(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise TrainingError(
            f"{picture} needs a caption in {path.name}, but that file cannot be read ({reason})"
        ) from None
    if not text:
        raise TrainingError(f"the caption {path} is empty: add a description, or remove it and its picture")
    return text


def entries(patterns: Sequence[str]) -> tuple[Entry, ...]:
    """The pictures in shards, folders and files. Raises TrainingError if a picture's header is damaged."""
    found: list[Entry] = []
    for path in data.expand(patterns):
        if path.suffix.lower() == ".npz":
            found += _shard_entries(path)
            continue
        files = data.in_folder(path) if path.is_dir() else [path]
        found += [Entry(file) for file in files]
        for file in files:
            _check_header(file, str(file))
    return tuple(found)


def _shard_entries(path: Path) -> list[Entry]:
    content, offset, _ = data.open_shard(path)
    found = [Entry(path, start, end) for start, end in pairwise(offset)]
    for number, entry in enumerate(found):
        _check_header(io.BytesIO(content[entry.start : entry.end].tobytes()), f"picture {number} of {path}")
    return found


def _check_header(file: Any, name: str) -> None:
    try:
        with Image.open(file):
            pass
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a picture"
        raise TrainingError(f"{name} cannot be used ({reason}): remove or replace it") from None


def read_styles(names: Sequence[str], long_side: int) -> list[Tensor]:
    """The style pictures in files and folders, in order, each (1, 3, H, W) in 0..1 with this long side.

    Raises TrainingError if there are none or more than 256.
    """
    files: list[Path] = []
    for path in data.expand(names):
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        readable = [one for one in below if one.suffix.lower() in READABLE]
        if not readable:
            raise TrainingError(f"no style pictures at {path}: use {', '.join(sorted(READABLE))}")
        files += readable
    if len(files) > _MOST_STYLES:
        raise TrainingError(
            f"{len(files)} style pictures are too many: use at most {_MOST_STYLES}, or train a method for "
            "arbitrary styles (ghiasi, adain)"
        )
    pictures = [Picture.open(path) for path in files]
    return [one.resized(fit(one.shape, long_side)).tensor() for one in pictures]


# drawing


class Decoder:
    """Decodes pictures, with a least-recently-used cache of up to `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self._kept: OrderedDict[tuple[Entry, int], data.Array] = OrderedDict()
        self._shards: dict[Path, data.Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process fills its own cache.
        return {"budget": self.budget}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["budget"])  # type: ignore[misc]

    def __call__(self, entry: Entry, short_side: int) -> data.Array:
        """The picture, RGB uint8 (H, W, 3), shrunk to `short_side`."""
        key = (entry, short_side)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        picture = data.shrink(self._decoded(entry), short_side)
        if picture.nbytes <= self.budget:
            self._kept[key] = picture
            self.used += picture.nbytes
        while self.used > self.budget:
            self.used -= self._kept.popitem(last=False)[1].nbytes
        return picture

    def _decoded(self, entry: Entry) -> data.Array:
        if entry.end is None:
            return data.read_file(entry.path)
        if entry.path not in self._shards:
            self._shards[entry.path] = data.open_shard(entry.path)[0]
        return data.decode(self._shards[entry.path][entry.start : entry.end], str(entry))


class Draws(Dataset[dict[str, Any]]):
    """The rows of batches, indexed by (step, row). The same key always gives the same crops."""

    def __init__(self, streams: Sequence[Stream], crop: int, seed: int, decoder: Decoder) -> None:
        self.streams, self.crop, self.seed, self.decoder = tuple(streams), crop, seed, decoder

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(data.mix(self.seed, *key))
        row: dict[str, Any] = {}
        for stream in self.streams:
            row |= stream.drawn(self.crop, self.decoder, generator)
        # A method that learns from its style alone still has batches, of empty rows.
        return row or {"row": key[1]}


@dataclass(frozen=True)
class Keys:
    """The keys (step, row) of the batches to load: the `parts` of every step from `start` to `end`.

    A part (index, count) holds every `count`-th row of the batch, starting at row `index`.
    """

    start: int
    end: int
    batch: int
    parts: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return (self.end - self.start) * len(self.parts)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.end):
            for index, count in self.parts:
                yield [(step, row) for row in range(index, self.batch, count)]


def _square(picture: data.Array, side: int, how: int) -> Tensor:
    """A whole picture (H, W, C) stretched to (C, S, S)."""
    return torch.from_numpy(cv2.resize(picture, (side, side), interpolation=how)).permute(2, 0, 1)


def _object(mask: Path, side: int, generator: torch.Generator) -> Tensor:
    """The mask (1, S, S), 0 or 255, of one of the objects of a photo. Raises TrainingError for none."""
    shades = data.read_file(mask)[:, :, 0]
    objects = np.unique(shades[shades > 0])
    if not objects.size:
        raise TrainingError(f"the mask {mask} is black: paint each object in a shade of grey")
    chosen = np.uint8(255) * (shades == objects[_random(len(objects), generator)])
    return _square(np.repeat(chosen[:, :, None], 3, 2), side, cv2.INTER_NEAREST)[:1]


def _random(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def reason_of(error: TrainingError) -> str:
    """The message of an error, without the traceback that errors from worker processes include."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return first_line(error) if len(lines) < 2 else lines[-1].partition("TrainingError: ")[2] or lines[-1]


def stacked(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as one batch: tensors stacked, numbers as int64, text as a list."""
    batch: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(first, Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = torch.from_numpy(np.asarray(values)) if isinstance(first, int) else values
    return batch
