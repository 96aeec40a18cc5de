"""Drawing the rows of batches: pictures are decoded on demand and cropped at random.

Each row of a batch is drawn by a generator seeded only by the run's seed, the step and the row. The draws do
not depend on the number of processes and workers, or on earlier steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from atelier.core.errors import TrainingError
from atelier.training import data
from atelier.training.buckets import Place

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
    #: For pictures in aspect buckets: how often an epoch shows each, and its place.
    repeats: tuple[int, ...] = ()
    places: tuple[Place, ...] = ()
    #: Masks of the objects of whole pictures, which are not cropped.
    masks: tuple[Path, ...] = ()
    whole: bool = False

    def crop(self, index: int, side: int, decoder: Decoder, generator: torch.Generator) -> Tensor:
        """A random crop (3, S, S), uint8, of a picture, or the whole of it stretched to a square."""
        return self.crops(index, side, decoder, generator)[0]

    def crops(
        self, index: int, side: int, decoder: Decoder, generator: torch.Generator, *, parts: int = 1
    ) -> list[Tensor]:
        """The same crop of each of the `parts` that lie side by side in a picture."""
        pictures = np.split(decoder(self.entries[index], self.short_side), parts, 1)
        if self.whole:
            return [_square(one, side, cv2.INTER_AREA) for one in pictures]
        return data.same_crops(pictures, side, self.zoom, generator, flip=self.flip, stretch=self.stretch)

    def split(self, held_back: int) -> tuple[Source, Source]:
        """The training pictures, and `held_back` evenly spaced pictures for evaluation."""
        count = len(self.entries)
        if count <= held_back:
            what = "picture is" if count == 1 else "pictures are"
            raise TrainingError(
                f"{count} {what} too few to hold out {held_back} for evaluation: "
                "provide more pictures or lower held_back"
            )
        judged = {round(index * count / held_back) for index in range(held_back)}
        return (
            self.only([index for index in range(count) if index not in judged]),
            self.only(sorted(judged)),
        )

    def only(self, rows: Sequence[int]) -> Source:
        """The pictures at `rows`, with what belongs to each."""
        lists = {name: getattr(self, name) for name in ("entries", "captions", "repeats", "places", "masks")}
        chosen: dict[str, Any] = {name: tuple(one[row] for row in rows) for name, one in lists.items() if one}
        return replace(self, **chosen)


@dataclass(frozen=True)
class Stream:
    """An item of the batch: pictures from one source, or labelled pictures from several sources.

    A row has `count` pictures of one source, (count, 3, S, S) if there are several. With `painted`, each
    picture of the sources is a photo beside its painting, which become two items with the same crop.
    """

    name: str
    sources: tuple[Source, ...]
    label: str = ""
    count: int = 1
    painted: bool = False

    def split(self, held_back: int) -> tuple[Stream, Stream]:
        """The training stream and the evaluation stream."""
        parts = [source.split(held_back) for source in self.sources]
        learn, judge = zip(*parts, strict=True)
        return replace(self, sources=learn), replace(self, sources=judge)

    def drawn(self, crop: int, decoder: Decoder, generator: torch.Generator) -> dict[str, Any]:
        """Crops (3, S, S) uint8, with their label, caption and mask if there are any."""
        number = _random(len(self.sources), generator)
        source = self.sources[number]
        crops: list[Tensor] = []
        for _ in range(self.count):
            index = _random(len(source.entries), generator)
            crops += source.crops(index, crop, decoder, generator, parts=1 + self.painted)
        found: dict[str, Any] = {self.name: crops[0] if self.count == 1 else torch.stack(crops)}
        if self.painted:
            found["painted"] = crops[1]
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


class Decoder:
    """Decodes pictures, with a least-recently-used cache of up to `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self._kept: OrderedDict[tuple[Entry, int | None], data.Array] = OrderedDict()
        self._shards: dict[Path, data.Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process fills its own cache.
        return {"budget": self.budget}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["budget"])  # type: ignore[misc]

    def __call__(self, entry: Entry, short_side: int | None) -> data.Array:
        """The picture, RGB uint8 (H, W, 3), shrunk to `short_side` unless that is None."""
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
