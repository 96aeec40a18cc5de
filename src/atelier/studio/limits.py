"""What the studio accepts: limits for uploads, results and the queue, and weights from one folder.

Nothing here opens a path that a request names. A request sends bytes, or the id of something that the studio
keeps, or the name of a weights file in the folder that was named when the studio started.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.errors import InputError, OutputError, ResourceError, UsageError, WeightsError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from atelier.images import Picture


class TooLargeError(InputError):
    """More bytes, pixels or pictures than the limits allow."""


class WrongKindError(InputError):
    """A file of a type that is not accepted here."""


class NotHereError(InputError):
    """An id that names nothing in the studio."""


class BusyError(ResourceError):
    """The queue is full."""


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take.

    >>> Limits(side=1024).check_side(2048)
    Traceback (most recent call last):
    ...
    atelier.studio.limits.TooLargeError: a picture with a long side of 2,048 pixels was asked for, ...
    """

    #: Bytes of one uploaded file.
    upload_bytes: int = 64 * 2**20
    #: Pixels of one uploaded picture, checked before it is decoded.
    pixels: int = 50_000_000
    #: The longest side of a result in pixels.
    side: int = 8192
    #: Pictures in one request: contents of a folder, cells of a comparison.
    pictures: int = 500
    #: Seconds that one picture may take; it then stops, and the best so far is kept.
    seconds: float = 3600.0
    #: Bytes of one request over HTTP, all its files together.
    request_bytes: int = 256 * 2**20
    #: Seconds that an upload may take over HTTP.
    upload_seconds: float = 120.0
    #: Jobs that wait.
    queue: int = 250
    #: Jobs that run at the same time; previews have a worker of their own.
    heavy: int = 1
    #: Prepared styles (`Stylizer`) that stay in memory.
    prepared: int = 4
    #: Finished jobs that are remembered.
    remembered: int = 500
    #: Bytes of uploads that are kept for "same again"; the oldest are removed first.
    kept_bytes: int = 4 * 2**30

    def check_side(self, side: int) -> None:
        """Raises TooLargeError for a result whose long side in pixels is over the limit."""
        if side > self.side:
            raise TooLargeError(
                f"a picture with a long side of {side:,} pixels was asked for, and the limit of this studio "
                f"is {self.side:,}: ask for a smaller one, or use the command line"
            )

    def check_bytes(self, count: int, name: str) -> None:
        """Raises TooLargeError for a file of `count` bytes that is over the limit."""
        if count > self.upload_bytes:
            raise TooLargeError(
                f"'{name}' has {count / 2**20:,.0f} MiB, and the limit of this studio is "
                f"{self.upload_bytes / 2**20:,.0f} MiB a file: send a smaller one"
            )

    def check_count(self, count: int, what: str) -> None:
        """Raises TooLargeError for more than `pictures` pictures in one request."""
        if count > self.pictures:
            raise TooLargeError(f"{count:,} {what} were sent, and the limit is {self.pictures:,}: send fewer")


def display_name(name: str | None) -> str:
    """The name of an uploaded file as it is shown and recorded: no folders, no control codes.

    >>> display_name("../../etc/pass\\nwd")
    'passwd'
    >>> display_name(None)
    'picture'
    """
    last = re.split(r"[/\\]", name or "")[-1]
    plain = "".join(letter for letter in last if letter.isprintable()).strip(" .")
    return plain[:100] or "picture"


def read_picture(data: bytes, name: str, limits: Limits, *, as_data: bool = False) -> Picture:
    """The picture in an uploaded file's bytes, upright, in sRGB; `as_data` for masks, as in `Picture.open`.

    Raises TooLargeError for too many bytes or pixels (a decompression bomb is refused before it is decoded),
    WrongKindError for bytes that are not a picture, and InputError for a damaged file.
    """
    from atelier.images import Picture
    from atelier.images.decode import KINDS, decode, is_picture

    limits.check_bytes(len(data), name)
    if not is_picture(data):
        found = "is empty" if not data else "is not a picture"
        raise WrongKindError(f"'{name}' {found}: send a {KINDS} file")
    try:
        made = decode(data, name, limits.pixels, as_data=as_data)
    except InputError as error:
        raise (TooLargeError if "and the limit is" in str(error) else InputError)(
            str(error).replace(", or raise max_pixels", "")
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    return Picture(
        made.pixels, made.alpha, name=name, sha256=digest, recipe=made.recipe, metadata=made.metadata
    )


def read_array(data: bytes, name: str) -> npt.NDArray[np.generic]:
    """The array in an uploaded .npy file. Raises WrongKindError for anything else, pickled objects too."""
    import io

    import numpy as np

    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise WrongKindError(f"'{name}' is not a .npy file of numbers: save it with numpy.save") from error
    if not isinstance(found, np.ndarray):
        raise WrongKindError(f"'{name}' holds several arrays (.npz): send one array as .npy")
    return found


class WeightsFolder:
    """The folder of the user's own weights, named when the studio starts. Only safetensors files count.

    Requests name its files without a path. Links that lead out of the folder are not followed. `made` tells
    the files that the studio has made itself, by the names that requests use.
    """

    def __init__(self, folder: Path | None, made: Callable[[], Mapping[str, Path]] = dict) -> None:
        if folder is not None and not folder.is_dir():
            raise WeightsError(f"the folder of weights '{folder}' does not exist: create it, or leave it out")
        self.folder, self.made = folder, made

    def files(self) -> dict[str, Path]:
        """The files by name: those of the folder in alphabetical order, then those that were made here."""
        root = self.folder.resolve() if self.folder else None
        files = sorted(self.folder.glob("*.safetensors")) if self.folder else []
        mine = {path.name: path for path in files if path.resolve().parent == root and path.is_file()}
        return {**self.made(), **mine}

    def names(self) -> list[str]:
        """The names of the files."""
        return list(self.files())

    def settle(self, knob: str, value: Any, words: Iterable[str] = ()) -> Any:
        """The value of a knob for weights: a record's name as it is, a file's name as its path.

        Raises UsageError for anything else: paths, other types, files that are not safetensors.
        """
        from atelier.store import records

        if value == "" or value in words:
            return value
        files = self.files()
        if isinstance(value, str) and value in files:
            return str(files[value])
        known = [*words, *(one.name for one in records.records()), *files]
        if isinstance(value, str) and value in known:
            return value
        if isinstance(value, str) and value.lower().endswith((".pth", ".pt", ".ckpt", ".bin", ".pkl")):
            raise UsageError(
                f"{knob} = '{display_name(value)}' is not allowed: the studio reads safetensors files only; "
                "convert it with `atelier weights add`"
            )
        near = did_you_mean(str(value), known).partition("allowed:")[0]
        raise UsageError(
            f"{knob} = {str(value)[:80]!r} is not allowed: it should be the name of known weights, or of a "
            f".safetensors file in the folder given by --weights{'; ' + near if near else ''}"
        )


def own_folder(folder: Path) -> Path:
    """The studio's folder, created if it does not exist. Raises OutputError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the studio's folder '{folder}' cannot be created ({error.strerror}): choose another"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the studio's folder '{folder}' cannot be written: choose another")
    return folder
