"""The gallery: every picture that was made, with its receipt and the request that made it.

An entry is three files in the gallery's own folder: the picture (`ID.tif`, 16 bits, with its receipt), a
thumbnail (`ID.jpg`) and the facts (`ID.json`). Entries are asked for by id; no path is ever taken.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.atomic import atomic
from atelier.core.errors import UsageError, did_you_mean
from atelier.studio.limits import NotHereError, own_folder
from atelier.studio.pictures import jpeg

if TYPE_CHECKING:
    from atelier.images import Picture

_ID = re.compile(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{6}")
_THUMBNAIL = 384

#: The formats of `Gallery.file`, and their media types.
FORMATS = {"png": "image/png", "jpg": "image/jpeg", "tif": "image/tiff", "webp": "image/webp"}
#: Media types of extra outputs.
MEDIA = {".svg": "image/svg+xml", ".gif": "image/gif", ".webp": "image/webp"}


@dataclass(frozen=True)
class Entry:
    """A picture in the gallery, without its pixels.

    `id` sorts by time; `created` is in seconds since 1970; `title` is a line to show; `size` is (width,
    height). `inputs` and `settings` are the request as JSON, for "open in Paint" (`Studio.request_of`).
    `artifacts` lists extra outputs: the knob that asked for each, and its extension. `stopped` says that it
    was stopped early.
    """

    id: str
    created: float
    title: str
    method: str
    quality: str
    size: tuple[int, int]
    seconds: float = 0.0
    stopped: bool = False
    inputs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """The entry as JSON."""
        return asdict(self)


class Gallery:
    """The entries in a folder, newest first. All methods may be called from any thread.

    >>> import numpy as np
    >>> import atelier
    >>> made = atelier.stylize(np.zeros((8, 12, 3)), method="identity")
    >>> gallery = Gallery(Path("gallery"))
    >>> entry = gallery.add(made, title="black, as it was", method="identity", quality="good")
    >>> [one.title for one in gallery.list(search="BLACK")], entry.size
    (['black, as it was'], (12, 8))
    """

    def __init__(self, folder: Path) -> None:
        self.folder = own_folder(folder)
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        for path in sorted(folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError):  # a damaged entry is not shown
                entry = _entry(json.loads(path.read_text(encoding="utf-8")))
                if path.stem == entry.id and (folder / f"{entry.id}.tif").is_file():
                    self._entries[entry.id] = entry

    def add(self, picture: Picture, *, title: str, method: str, quality: str, **facts: Any) -> Entry:
        """Keep a picture. `facts` are further fields of `Entry`; `artifacts` must name all that it has.

        Raises OutputError when the disk is full; nothing is kept then.
        """
        from atelier.images import write

        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        id = f"{stamp}-{int(now % 1 * 1000):03d}-{secrets.token_hex(3)}"
        entry = Entry(id, now, title, method, quality, picture.size, **facts)
        write(picture, self.folder / f"{id}.tif", bits=16)
        try:
            small = picture.resized(_THUMBNAIL) if max(picture.size) > _THUMBNAIL else picture
            self._write(f"{id}.jpg", jpeg(small))
            for knob, data in picture.artifacts.items():
                self._write(f"{id}.{knob}{entry.artifacts[knob]}", data)
            self._write(f"{id}.json", json.dumps(entry.facts()).encode())
        except BaseException:
            self._remove(id)
            raise
        with self._lock:
            self._entries[id] = entry
        return entry

    def list(self, *, search: str = "", limit: int = 100, before: str = "") -> list[Entry]:
        """The newest entries whose title, method, words or input names hold all the words of `search`.

        `before` is the id of the last entry of the page before.
        """
        words = search.lower().split()
        with self._lock:
            entries = sorted(self._entries.values(), key=lambda one: one.id, reverse=True)
        found = (one for one in entries if (not before or one.id < before) and _matches(one, words))
        return [entry for entry, _ in zip(found, range(max(0, limit)), strict=False)]

    def get(self, id: str) -> Entry:
        """The entry. Raises NotHereError."""
        with self._lock:
            entry = self._entries.get(id) if isinstance(id, str) else None
        if entry is None:
            raise NotHereError(
                f"there is no picture '{str(id)[:40]}' in the gallery: it may have been deleted"
            )
        return entry

    def open(self, id: str) -> Picture:
        """The picture, with its recipe. Raises NotHereError."""
        from atelier.images import Picture

        return Picture.open(self._path(self.get(id).id, ".tif"))

    def receipt(self, id: str) -> dict[str, Any] | None:
        """The recipe in the picture. Raises NotHereError."""
        from atelier.images import read_recipe

        return read_recipe(self._path(self.get(id).id, ".tif"))

    def file(self, id: str, format: str = "png", *, bits: int | None = None, quality: int = 95) -> bytes:
        """The picture as the bytes of a file with its receipt inside, to be downloaded.

        `format` is one of `FORMATS`, `bits` 8 or 16 (16 for png and tif; by default 16 for tif, else 8).
        Raises NotHereError and UsageError.
        """
        from atelier.images.encode import encode

        if format not in FORMATS:
            raise UsageError(f"format = '{format}' is not allowed: {did_you_mean(format, FORMATS)}")
        if bits not in (None, 8, 16) or (bits == 16 and format not in ("png", "tif")):
            raise UsageError(f"bits = {bits} is not allowed: 8, or 16 for png and tif")
        if not 1 <= quality <= 100:
            raise UsageError(f"quality = {quality} is not allowed: it is 1 to 100")
        if format == "tif" and bits != 8:
            return self._path(self.get(id).id, ".tif").read_bytes()
        return encode(self.open(id), f".{format}", bits=bits or 8, quality=quality)

    def thumbnail(self, id: str) -> bytes:
        """A small JPEG. Raises NotHereError."""
        return self._path(self.get(id).id, ".jpg").read_bytes()

    def artifact(self, id: str, knob: str) -> tuple[bytes, str]:
        """An extra output and its extension. Raises NotHereError."""
        entry = self.get(id)
        if knob not in entry.artifacts:
            raise NotHereError(f"the picture has no extra output '{knob[:40]}'")
        suffix = entry.artifacts[knob]
        return self._path(entry.id, f".{knob}{suffix}").read_bytes(), suffix

    def delete(self, id: str) -> None:
        """Remove a picture for good. Raises NotHereError."""
        entry = self.get(id)
        with self._lock:
            self._entries.pop(entry.id, None)
        self._remove(entry.id)

    def _path(self, id: str, suffix: str) -> Path:
        path = self.folder / f"{id}{suffix}"
        if not path.is_file():
            raise NotHereError(f"the file of the picture '{id}' is gone: it was removed outside the studio")
        return path

    def _write(self, name: str, data: bytes) -> None:
        with atomic(self.folder / name) as beside:
            beside.write_bytes(data)

    def _remove(self, id: str) -> None:
        for path in self.folder.glob(f"{id}.*"):
            path.unlink(missing_ok=True)


def _entry(facts: Mapping[str, Any]) -> Entry:
    if not _ID.fullmatch(facts["id"]):
        raise ValueError(facts["id"])
    return Entry(**{**facts, "size": tuple(facts["size"])})


def _matches(entry: Entry, words: list[str]) -> bool:
    if not words:
        return True
    texts = " ".join(entry.inputs.get("texts", ()))
    text = f"{entry.title} {entry.method} {entry.quality} {texts}".lower()
    return all(word in text for word in words)
