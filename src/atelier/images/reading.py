"""Reads picture files: their bytes, and the decoded picture."""

from __future__ import annotations

import difflib
import hashlib
import stat
from pathlib import Path
from typing import Any

from atelier.core.errors import InputError
from atelier.images import decode
from atelier.images.arrays import MAX_PIXELS, Decoded

# The largest uncompressed pixel (four channels of 64-bit floats), and an allowance for metadata.
_BYTES_PER_PIXEL = 32
_METADATA = 64 * 2**20


def read_decoded(
    path: str | Path, max_pixels: int = MAX_PIXELS, *, as_data: bool = False
) -> tuple[Decoded, str]:
    """The decoded picture in a file, and the sha256 of the file. See `decode.decode` for `as_data`.

    Raises InputError for a file that is missing, not a picture, damaged, or larger than `max_pixels`, which
    is checked before decoding.
    """
    data = read_bytes(path, max_pixels)
    return decode.decode(data, str(path), max_pixels, as_data=as_data), hashlib.sha256(data).hexdigest()


def read_recipe(path: str | Path) -> dict[str, Any] | None:
    """The recipe in a picture file, or None. Raises InputError as `read_decoded` does."""
    return decode.decode_recipe(read_bytes(path, MAX_PIXELS), str(path))


def read_bytes(path: str | Path, max_pixels: int) -> bytes:
    """The bytes of a regular file, at most what `max_pixels` pixels can take. Raises InputError."""
    file = Path(path)
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"'{path}' is a folder: give a picture file")
        # A pipe would block, and a device may be endless.
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"'{path}' is not a regular file: copy its contents to one first")
        if status.st_size > max_pixels * _BYTES_PER_PIXEL + _METADATA:
            raise InputError(
                f"'{path}' has {status.st_size} bytes, more than {max_pixels} pixels take: make it smaller"
            )
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(_missing(file)) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' cannot be read ({reason(error)}): check its name and permissions"
        ) from error


def _missing(file: Path) -> str:
    folder = file.parent
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return f"'{file}' does not exist, nor does its folder '{folder}'"
    near = difflib.get_close_matches(file.name, names, n=1)
    return f"'{file}' does not exist: " + (
        f"did you mean '{folder / near[0]}'?" if near else f"check the name in '{folder}'"
    )


def reason(error: Exception) -> str:
    """The system's reason for a failure to read or write a file."""
    return getattr(error, "strerror", None) or str(error)
