"""The data of a LoRA: folders with repeats, aspect buckets, and captions that are drawn anew at each step.

An epoch shows every picture as often as its folder says, in an order that depends only on the seed and the
epoch. A batch holds pictures of one bucket; the last one of a bucket is filled up with pictures from the
bucket's start, so that all batches have the same number.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from atelier.core.errors import InputError, TrainingError
from atelier.methods.trainable import DataInfo
from atelier.training import captions, data
from atelier.training.buckets import Buckets, Place, cropped
from atelier.training.datasets import DataSet, check_header, divided
from atelier.training.streams import Decoder, Entry, Source, Stream

#: Pictures that a LoRA needs at least: fewer are copied and not learnt from.
LEAST = 4


def buckets_of(settings: Any) -> Buckets:
    """The buckets of a run."""
    return Buckets.of(
        settings.crop,
        least=settings.bucket_least,
        most=settings.bucket_most,
        step=settings.bucket_step,
        upscale=settings.upscale,
        single=not settings.buckets,
    )


def read(settings: Any) -> DataSet:
    """The pictures of the folders, with captions and buckets. Raises TrainingError."""
    buckets = buckets_of(settings)
    found: list[tuple[Entry, str, int, Place]] = []
    names: dict[str, Any] = {}
    for root in data.expand(settings.pictures):
        try:
            folders = captions.folders(root)
        except InputError as error:
            raise TrainingError(str(error)) from None
        for folder in folders:
            _check_name(folder, names)
            rows = [_row(picture, folder, buckets, settings.trigger) for picture in folder.pictures]
            found += rows
            names[folder.path.name] = {"n_repeats": folder.repeats, "img_count": len(rows)}
    if len(found) < LEAST:
        raise TrainingError(
            f"{len(found)} pictures are too few for a LoRA: use at least {LEAST}, better 15 to 50"
        )
    entries, texts, repeats, places = zip(*found, strict=True)
    source = Source(entries, 0, 1.0, settings.flip, 1.0, texts, repeats, places)
    info = DataInfo(facts=_facts(source, names) | {"batches": batches(source, settings.batch)})
    return divided((Stream("pictures", (source,)),), info, settings.held_back)


def _check_name(folder: captions.Folder, known: Mapping[str, Any]) -> None:
    if folder.path.name in known:
        raise TrainingError(f"two folders are named '{folder.path.name}': give each its own name")


def _row(
    picture: Path, folder: captions.Folder, buckets: Buckets, trigger: str
) -> tuple[Entry, str, int, Place]:
    check_header(picture, str(picture))
    with Image.open(picture) as opened:
        size = opened.size
        # The rows of a picture that lies on its side are its columns.
        if opened.getexif().get(0x0112, 1) > 4:
            size = size[::-1]
    text = captions.caption_of(picture, folder, needed=not trigger)
    words = ", ".join(filter(None, (trigger, text)))
    return Entry(picture), words, folder.repeats, buckets.place(size)


def _facts(source: Source, names: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata of a LoRA tells of its data."""
    tags: dict[str, Counter[str]] = {name: Counter() for name in names}
    for entry, text in zip(source.entries, source.captions, strict=True):
        tags[entry.path.parent.name].update(one.lower() for one in captions.tags(text.split("\n")[0]))
    sizes: Counter[tuple[int, int]] = Counter()
    for place, count in zip(source.places, source.repeats, strict=True):
        sizes[place.bucket] += count
    error = np.mean([abs(place.error) for place in source.places])
    return {
        "dataset_dirs": dict(names),
        "tag_frequency": {name: dict(counts) for name, counts in tags.items()},
        "images": sum(source.repeats),
        "buckets": {
            str(number): {"resolution": list(size), "count": count}
            for number, (size, count) in enumerate(sorted(sizes.items()))
        },
        "mean_aspect_error": float(error),
    }


def rules_of(settings: Any) -> captions.Rules:
    """How the captions of a run change."""
    return captions.Rules(
        dropped=settings.dropped,
        shuffled=settings.shuffle,
        # The trigger stays in front of the tags that are kept.
        kept=settings.keep + len(captions.tags(settings.trigger)),
        tags_dropped=settings.tags_dropped,
        wildcards=settings.wildcards,
    )


class Arranged(Dataset[dict[str, Any]]):
    """The rows of batches, indexed by (step, row): a picture in its bucket, its caption, and its name.

    The names, which tell mirrored pictures apart, are for caches of what is computed from a picture.
    """

    def __init__(self, source: Source, settings: Any, seed: int, decoder: Decoder) -> None:
        self.source, self.batch, self.seed, self.decoder = source, settings.batch, seed, decoder
        self.rules = rules_of(settings)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        step, row = key
        epoch, place = divmod(step, batches(self.source, self.batch))
        index = arranged(self.source, self.batch, data.mix(self.seed, epoch))[place][row]
        chance = random.Random(data.mix(self.seed, step, row))
        mirrored = self.source.flip and chance.random() < 0.5
        entry = self.source.entries[index]
        found = cropped(self.decoder(entry, None), self.source.places[index])
        pixels = np.ascontiguousarray(found[:, ::-1] if mirrored else found)
        text = self.rules.drawn(self.source.captions[index], chance, epoch=epoch + 1, step=step)
        name = f"{entry} mirrored" if mirrored else str(entry)
        return {"pictures": torch.from_numpy(pixels).permute(2, 0, 1), "captions": text, "names": name}


@lru_cache(maxsize=4)
def batches(source: Source, batch: int) -> int:
    """The number of batches in an epoch."""
    sizes: Counter[Any] = Counter()
    for place, count in zip(source.places, source.repeats, strict=True):
        sizes[place.bucket] += count
    return sum(-(-count // batch) for count in sizes.values())


@lru_cache(maxsize=2)
def arranged(source: Source, batch: int, seed: int) -> list[list[int]]:
    """The batches of one epoch, each the numbers of its pictures."""
    order = random.Random(seed)
    groups: dict[Any, list[int]] = {}
    for index, (place, count) in enumerate(zip(source.places, source.repeats, strict=True)):
        groups.setdefault(place.bucket, []).extend([index] * count)
    found = []
    for _, group in sorted(groups.items()):
        order.shuffle(group)
        missing = -len(group) % batch
        filled = group + [group[number % len(group)] for number in range(missing)]
        found += [filled[start : start + batch] for start in range(0, len(filled), batch)]
    order.shuffle(found)
    return found
