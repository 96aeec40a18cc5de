"""Data sets for training methods, found and checked up front; `streams` draws from them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from atelier.core.errors import TrainingError, first_line
from atelier.images import READABLE, Picture, fit
from atelier.methods.trainable import DataInfo
from atelier.training import data
from atelier.training.streams import Entry, Pairs, Source, Stream, StyleGroups

#: Decoded pictures are shrunk to this short side. Paintings stay larger: their crops zoom in further.
_SHORT_SIDE, _PAINTING_SHORT_SIDE = 512, 640
_MOST_STYLES = 256


@dataclass(frozen=True)
class DataSet:
    """The streams for training and for evaluation (empty if nothing is held out), and facts on the data."""

    learn: tuple[Stream, ...]
    judge: tuple[Stream, ...]
    info: DataInfo = field(default_factory=DataInfo)

    def __str__(self) -> str:
        """The number of pictures by name, for the terminal."""
        counts = []
        # Several pictures in a row come from the sources of another stream.
        for stream in (one for one in self.learn if one.count == 1):
            sizes = [len(source.entries) for source in stream.sources]
            if stream.label:
                counts += [f"{size} {name}" for size, name in zip(sizes, self.info.domains, strict=True)]
            else:
                counts.append(f"{sum(sizes)} {stream.name}")
        if self.info.styles:
            counts.append(f"{len(self.info.styles)} {'style' if len(self.info.styles) == 1 else 'styles'}")
        held = sum(len(one.entries) for stream in self.judge if stream.count == 1 for one in stream.sources)
        return ", ".join(counts) + (f"; {held} held out for evaluation" if held else "")


# finding and checking


def read(kind: str, settings: Any) -> DataSet:
    """Read the data set of a `DataKind`. Raises TrainingError if the data cannot be used."""
    return divided(*_READERS[kind](settings), settings.held_back)


def divided(streams: tuple[Stream, ...], info: DataInfo, held_back: int) -> DataSet:
    """The data set with `held_back` pictures of each source for evaluation."""
    if not held_back:
        return DataSet(streams, (), info)
    parts = [stream.split(held_back) for stream in streams]
    return DataSet(tuple(part[0] for part in parts), tuple(part[1] for part in parts), info)


Read = tuple[tuple[Stream, ...], DataInfo]


def _pairs(settings: Any) -> Read:
    photos = Source(entries(settings.photos), _SHORT_SIDE, settings.photo_zoom)
    paintings = Source(entries(settings.paintings), _PAINTING_SHORT_SIDE, settings.painting_zoom)
    return (Stream("photos", (photos,)), Stream("paintings", (paintings,))), DataInfo()


def _styles(settings: Any) -> Read:
    photos = Source(entries(settings.photos), _SHORT_SIDE, settings.photo_zoom)
    files = style_files(settings.paintings)
    info = DataInfo(read_styles(files, settings.style_side), [file.stem for file in files])
    return (Stream("photos", (photos,)),), info


def _one_style(settings: Any) -> Read:
    styles = read_styles(style_files((settings.style,)), settings.style_side)
    if len(styles) > 1:
        raise TrainingError(f"{settings.style} has {len(styles)} pictures: this method learns a single style")
    if not settings.photos:  # only where the method allows it
        return (), DataInfo(styles)
    photos = Source(entries(settings.photos), _SHORT_SIDE, settings.photo_zoom)
    return (Stream("photos", (photos,)),), DataInfo(styles)


def _painted(settings: Any) -> Read:
    if not settings.photos:
        raise TrainingError("this method learns from photos: give them with --photos")
    (stream,), info = _one_style(settings)
    (source,) = stream.sources
    count, most = len(source.entries), settings.painted_most + settings.held_back
    if count > most:
        source = source.only([index * count // most for index in range(most)])
    return (replace(stream, sources=(source,)),), info


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


def _referenced(settings: Any) -> Read:
    (pictures,), info = _labelled(settings)
    return (pictures, Stream("references", pictures.sources, label="wanted", count=2)), info


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
    "painted": _painted,
    "pictures": _pictures,
    "domains": _domains,
    "labelled": _labelled,
    "referenced": _referenced,
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
            check_header(file, str(file))
    return tuple(found)


def _shard_entries(path: Path) -> list[Entry]:
    content, offset, _ = data.open_shard(path)
    found = [Entry(path, start, end) for start, end in pairwise(offset)]
    for number, entry in enumerate(found):
        check_header(io.BytesIO(content[entry.start : entry.end].tobytes()), f"picture {number} of {path}")
    return found


def check_header(file: Any, name: str) -> None:
    """Raise TrainingError for a file that is no picture; only its header is read."""
    try:
        with Image.open(file):
            pass
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a picture"
        raise TrainingError(f"{name} cannot be used ({reason}): remove or replace it") from None


def style_files(names: Sequence[str]) -> list[Path]:
    """The files of the style pictures in files and folders, in order.

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
    return files


def read_styles(files: Sequence[Path], long_side: int) -> list[Tensor]:
    """The style pictures in files, each (1, 3, H, W) in 0..1 with this long side."""
    pictures = [Picture.open(path) for path in files]
    return [one.resized(fit(one.shape, long_side)).tensor() for one in pictures]


def reason_of(error: TrainingError) -> str:
    """The message of an error, without the traceback that errors from worker processes include."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return first_line(error) if len(lines) < 2 else lines[-1].partition("TrainingError: ")[2] or lines[-1]
