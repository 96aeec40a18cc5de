"""Writes pictures to files, atomically. `reading` is the inverse."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.core.atomic import atomic
from atelier.core.errors import OutputError, ResourceError, UsageError
from atelier.images import encode, stylefile
from atelier.images.arrays import MAX_PIXELS
from atelier.images.metadata import NO_METADATA, strongest
from atelier.images.picture import Picture
from atelier.images.reading import reason

if TYPE_CHECKING:
    from torch import Tensor

# File systems allow 255 bytes, and the name of the temporary file is longer than that of its target.
_LONGEST_NAME = 235


def read(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a file; see `Picture.open`."""
    return Picture.open(path, max_pixels=max_pixels)


def write(
    picture: Picture,
    path: str | Path,
    *,
    overwrite: bool = False,
    bits: int | None = None,
    quality: int = 95,
    receipt: bool = True,
    metadata: bool = True,
    source_type: str = "",
    quick: bool = False,
) -> None:
    """Writes `picture` in the format of the path's extension, with its recipe and metadata.

    `bits` is 8 or 16 (16 for PNG and TIFF only; TIFF's default is 16, the others' 8), `quality` 1..100 for
    JPEG and WebP. Alpha is kept, except in JPEG, which is composited on white. `receipt=False` omits the
    recipe, `metadata=False` resolution and rights. The digital source type of the file is the strongest of
    `source_type` (an IPTC type, as URI or last word), the recipe's and the picture's own. `quick` writes PNG
    three times as fast, by runs alone (zlib's Z_RLE): paint takes the same space, scans up to a quarter more.

    Raises UsageError for an unknown extension or value, OutputError if the file cannot be written, and
    ResourceError if memory runs out; in all cases no partial file is left.
    """
    target = Path(path)
    check_writable(target, overwrite=overwrite, bits=bits)
    suffix = target.suffix.lower()
    depth = _depth(suffix, bits)
    if not 1 <= quality <= 100:
        raise UsageError(f"quality is 1 to 100, not {quality}")
    try:
        told = _telling(picture, receipt, metadata, source_type)
        data = encode.encode(told, suffix, bits=depth, quality=quality, quick=quick)
        with atomic(target) as temporary:
            temporary.write_bytes(data)
    except MemoryError as error:
        raise ResourceError(f"not enough memory to write '{target}': close other programs") from error
    except OSError as error:
        raise OutputError(_unwritten(target, error)) from error


def _telling(picture: Picture, receipt: bool, metadata: bool, source_type: str) -> Picture:
    """The picture with the recipe and metadata to write."""
    made = str((picture.recipe or {}).get("source_type") or "")
    about = (picture.metadata if metadata else NO_METADATA).marked(
        strongest(picture.metadata.source_type, made, source_type)
    )
    return replace(picture, recipe=picture.recipe if receipt else None, metadata=about)


def write_style(
    painting: Picture,
    path: str | Path,
    entries: Mapping[str, Mapping[str, Tensor]],
    *,
    overwrite: bool = False,
) -> None:
    """Writes a style file: a painting and cache entries by key. Raises the same errors as `write`."""
    target = Path(path)
    check_style_writable(target, overwrite=overwrite)
    try:
        stylefile.write(target, painting.pixels, painting.alpha, entries)
    except OSError as error:
        raise OutputError(_unwritten(target, error)) from error


def check_style_writable(path: Path, *, overwrite: bool = False) -> None:
    """Raises the error that `write_style` would raise for this path."""
    if path.suffix.lower() != stylefile.SUFFIX:
        raise UsageError(f"'{path}' is not a name for a style file: its extension must be {stylefile.SUFFIX}")
    try:
        _check_target(path, overwrite)
    except (OSError, ValueError) as error:
        raise OutputError(_unwritten(path, error)) from error


def check_writable(
    path: str | Path,
    *,
    overwrite: bool = False,
    bits: int | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Raises the error that `write` would raise for this path, before long work instead of after it.

    UsageError for an extension that is not in `encode.WRITABLE` or cannot hold `bits`. OutputError if the
    file exists and `overwrite` is False, if its folder is missing or not writable, or if the format cannot
    hold a picture of `size` (width, height), if given.
    """
    target = Path(path)
    if target.suffix.lower() not in encode.WRITABLE:
        allowed = ", ".join(encode.WRITABLE)
        raise UsageError(f"'{path}' has no extension that can be written: use one of {allowed}")
    _depth(target.suffix.lower(), bits)
    if size is not None:
        encode.check_size(target.suffix.lower(), *size)
    try:
        _check_target(target, overwrite)
    except (OSError, ValueError) as error:
        raise OutputError(_unwritten(target, error)) from error


def _check_target(target: Path, overwrite: bool) -> None:
    folder = target.parent
    if len(os.fsencode(target.name)) > _LONGEST_NAME:
        raise OutputError(f"the name '{target.name[:40]}...' is too long: the limit is {_LONGEST_NAME} bytes")
    if not folder.is_dir():
        raise OutputError(f"the folder '{folder}' does not exist: create it, or write elsewhere")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder '{folder}' is not writable: choose another, or change its permissions")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OutputError(f"'{target}' is not a regular file, so it is not replaced: choose another name")
    if not overwrite:
        raise OutputError(f"'{target}' exists: choose another name or give --overwrite")


def _depth(suffix: str, bits: int | None) -> int:
    if bits is None:
        return 16 if suffix in (".tif", ".tiff") else 8
    if bits not in (8, 16):
        raise UsageError(f"bits is 8 or 16, not {bits}")
    if bits == 16 and suffix not in encode.DEEP:
        raise UsageError(f"{suffix} holds only 8 bits: for 16 bits write {', '.join(encode.DEEP)}")
    return bits


def _unwritten(target: Path, error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"'{target}' cannot be written: the disk is full; make room or write elsewhere"
    return f"'{target}' cannot be written ({reason(error)}): choose another place or name"
