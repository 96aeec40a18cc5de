"""The pictures that requests refer to by id: uploads, drawn examples, the shelf of own styles, results.

Ids are `upload:SHA256` (what was sent), `style:NAME` and `photo:NAME` (the bundled examples), `shelf:SHA256`
(own styles that are kept) and `made:ID` (results in the gallery). Files are named by their hash, so a receipt
finds its inputs again by the hashes that it holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atelier import examples
from atelier.core.atomic import atomic
from atelier.core.errors import did_you_mean
from atelier.studio.limits import Limits, NotHereError, display_name, own_folder, read_picture

if TYPE_CHECKING:
    from atelier.images import Picture

_DIGEST = re.compile(r"[0-9a-f]{64}")
_THUMBNAIL = 256
#: Small pictures of the examples, of 160 px: painting all styles for the first page takes seven seconds.
_READY = Path(__file__).parent / "shelf"
READY = 160
#: Bytes of decoded pictures that stay in memory.
_IN_MEMORY = 256 * 2**20

#: What stands for a picture: an id, the bytes of a file, an `Upload`, an array, a PIL image or a Picture.
Source = Any


class Upload(NamedTuple):
    """A file that was sent: its name, for display only, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Style:
    """A style on the shelf: `id` for requests, `name` to show, `own` for those that the user kept."""

    id: str
    name: str
    sentence: str = ""
    own: bool = False


class Pictures:
    """The pictures in the studio's folder. All methods may be called from any thread.

    `made` reads a result of the gallery by its id, as bytes of a file.
    """

    def __init__(self, folder: Path, limits: Limits, made: Callable[[str], bytes]) -> None:
        self.limits, self._made = limits, made
        self._uploads, self._shelf = own_folder(folder / "uploads"), own_folder(folder / "shelf")
        self.drawn, self._thumbs = own_folder(folder / "drawn"), own_folder(folder / "thumbnails")
        self._memory: OrderedDict[tuple[Any, ...], Picture] = OrderedDict()
        self._lock = threading.Lock()
        self._drawing = threading.Lock()
        self._kept = sum(path.stat().st_size for path in self._files())

    def add(self, data: bytes, name: str = "") -> str:
        """Keep a file that was sent; its id. Nothing is decoded yet. Raises TooLargeError."""
        shown = display_name(name)
        self.limits.check_bytes(len(data), shown)
        digest = hashlib.sha256(data).hexdigest()
        _keep(self._uploads / digest, data, shown)
        self._make_room(len(data))
        return f"upload:{digest}"

    def id_of(self, source: Source, name: str = "") -> str:
        """The id of a source: ids as they are, anything else is kept as an upload. Raises InputError.

        Arrays and PIL images are written as PNG, which takes a second for 2 million pixels: send the bytes
        of the file where there is one.
        """
        from atelier.images import Picture
        from atelier.images.encode import encode

        if isinstance(source, str):
            self.check(source)
            return source
        if isinstance(source, Upload):
            return self.add(source.data, source.name)
        if isinstance(source, bytes):
            return self.add(source, name)
        picture = Picture.of(source, max_pixels=self.limits.pixels)
        return self.add(encode(picture, ".png", bits=8, quality=95), name or picture.name or "picture.png")

    def check(self, id: str) -> None:
        """Raises NotHereError for an id that names nothing."""
        self._find(id)

    def name(self, id: str) -> str:
        """The name to show for an id."""
        kind, _, rest = id.partition(":")
        if kind in ("upload", "shelf"):
            with contextlib.suppress(OSError):
                return self._find(id)[1].with_suffix(".name").read_text(encoding="utf-8")
        return rest

    def read(self, id: str) -> bytes:
        """The bytes of a picture file. Raises NotHereError."""
        kind, path = self._find(id)
        if kind == "made":
            return self._made(path.name)
        if kind in ("style", "photo") and not path.is_file():
            with self._drawing:
                if not path.is_file():
                    draw_example(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise NotHereError(f"the picture '{id[:40]}' is no longer kept: send it again") from error
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used uploads are removed first
        return data

    def open(self, source: Source, *, data: bool = False, side: int | None = None) -> Picture:
        """The decoded picture; the latest stay in memory. `data` is for masks.

        With `side`, a copy that is no longer than that, for previews. Raises NotHereError, and what
        `read_picture` raises.
        """
        from atelier.images import Picture

        if isinstance(source, Picture) or not isinstance(source, str | bytes | Upload):
            picture = Picture.of(source, max_pixels=self.limits.pixels, data=data)
            return picture if side is None or max(picture.size) <= side else picture.resized(side)
        key = (source, data, side)
        with self._lock:
            if isinstance(source, str) and key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        picture = self._decoded(source, data)
        if side is not None and max(picture.size) > side:
            picture = picture.resized(side)
        if isinstance(source, str):
            self._remember(key, picture)
        return picture

    def _decoded(self, source: str | bytes | Upload, data: bool) -> Picture:
        if isinstance(source, str):
            return read_picture(self.read(source), self.name(source), self.limits, as_data=data)
        name, content = source if isinstance(source, Upload) else ("picture", source)
        return read_picture(content, display_name(name), self.limits, as_data=data)

    def by_hash(self, sha256: str) -> str | None:
        """The id of a kept file with this hash, for receipts; None if there is none."""
        if not _DIGEST.fullmatch(sha256):
            return None
        for kind, folder in (("upload", self._uploads), ("shelf", self._shelf)):
            if (folder / sha256).is_file():
                return f"{kind}:{sha256}"
        for path in self.drawn.glob("*.png"):
            if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                return path.stem.replace("-", ":", 1)
        return None

    # the shelf

    def shelf(self) -> list[Style]:
        """The styles on the shelf: those that the user kept, newest first, then the drawn ones."""
        files = [path for path in self._shelf.iterdir() if _DIGEST.fullmatch(path.name)]
        files.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        own = [Style(f"shelf:{path.name}", self.name(f"shelf:{path.name}"), own=True) for path in files]
        drawn = [
            Style(f"style:{name}", name.replace("_", " "), says) for name, says in examples.STYLES.items()
        ]
        return [*own, *drawn]

    def photos(self) -> list[Style]:
        """The example photos."""
        return [Style(f"photo:{name}", name, says) for name, says in examples.PHOTOS.items()]

    def keep(self, source: Source, name: str = "") -> Style:
        """Put a style on the shelf. Raises what `open` raises for a file that is not a picture."""
        id = self.id_of(source, name)
        self.open(id)
        data, shown = self.read(id), display_name(name or self.name(id))
        digest = hashlib.sha256(data).hexdigest()
        _keep(self._shelf / digest, data, shown)
        return Style(f"shelf:{digest}", shown, own=True)

    def drop(self, id: str) -> None:
        """Take an own style off the shelf. Raises NotHereError."""
        kind, path = self._find(id)
        if kind != "shelf":
            raise NotHereError(f"'{id[:40]}' is not an own style: only those can be taken off the shelf")
        path.unlink(missing_ok=True)
        path.with_suffix(".name").unlink(missing_ok=True)

    def thumbnail(self, id: str, side: int = _THUMBNAIL) -> bytes:
        """A small JPEG of the picture, `side` pixels long; made once and kept. Raises what `open` raises.

        Examples have one of 160 px at hand, which stands for smaller ones too.
        """
        self.check(id)
        ready = _READY / f"{id.replace(':', '-')}.jpg"
        if side <= READY and ready.is_file():
            return ready.read_bytes()
        path = self._thumbs / f"{hashlib.sha256(f'{id} {side}'.encode()).hexdigest()}.jpg"
        if not path.is_file():
            with atomic(path) as beside:
                beside.write_bytes(jpeg(self._small(id, side)))
        return path.read_bytes()

    def _small(self, id: str, side: int) -> Picture:
        from atelier.images import Picture

        kind, _, name = id.partition(":")
        if kind == "style" and side <= _THUMBNAIL:  # painting it small is five times as fast
            with self._drawing:
                return Picture(examples.style(name, size=max(64, side)))
        picture = self._decoded(id, False)
        return picture.resized(side) if max(picture.size) > side else picture

    # files

    def _find(self, id: str) -> tuple[str, Path]:
        """The kind and the file of an id. Raises NotHereError for anything that is not exactly one."""
        kind, _, rest = id.partition(":")
        folders = {"upload": self._uploads, "shelf": self._shelf}
        if kind in folders and _DIGEST.fullmatch(rest):
            if (folders[kind] / rest).is_file():
                return kind, folders[kind] / rest
            raise NotHereError(f"the picture '{id[:40]}' is no longer kept: send it again")
        known = {"style": examples.STYLES, "photo": examples.PHOTOS}.get(kind)
        if known is not None:
            if rest in known:
                return kind, self.drawn / f"{kind}-{rest}.png"
            raise NotHereError(f"there is no example '{rest[:40]}': {did_you_mean(rest, known)}")
        if kind == "made" and re.fullmatch(r"[0-9a-z-]{1,40}", rest):
            return kind, Path(rest)
        raise NotHereError(
            f"'{id[:40]}' is not an id of a picture: send the file, or an id that the studio gave out"
        )

    def undrawn(self) -> list[str]:
        """The ids of the shelf's styles that are still to be drawn, which takes seconds for each."""
        there = {path.name for path in self.drawn.iterdir()}
        return [f"style:{name}" for name in examples.STYLES if f"style-{name}.png" not in there]

    def _remember(self, key: tuple[Any, ...], picture: Picture) -> None:
        with self._lock:
            self._memory[key] = picture
            while len(self._memory) > 1 and sum(map(_bytes, self._memory.values())) > _IN_MEMORY:
                self._memory.popitem(last=False)

    def _make_room(self, coming: int) -> None:
        """Remove the uploads that were not used for longest where more are kept than the limit allows."""
        with self._lock:
            self._kept += coming
            if self._kept <= self.limits.kept_bytes:
                return
            files = [(path, path.stat()) for path in self._files()]
            self._kept = sum(status.st_size for _, status in files)
            for path, status in sorted(files, key=lambda one: one[1].st_mtime):
                if self._kept <= self.limits.kept_bytes:
                    break
                self._kept -= status.st_size
                path.unlink(missing_ok=True)
                path.with_suffix(".name").unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [path for path in self._uploads.iterdir() if _DIGEST.fullmatch(path.name)]


def draw_example(path: Path) -> None:
    """Write the example that a file of the studio's folder is named for, such as style-ink.png."""
    from atelier.images import Picture, write

    kind, _, name = path.stem.partition("-")
    write(Picture((examples.style if kind == "style" else examples.photo)(name)), path, overwrite=True)


def jpeg(picture: Picture, quality: int = 88) -> bytes:
    """A JPEG of the picture, without receipt."""
    from dataclasses import replace

    from atelier.images.encode import encode

    return encode(replace(picture, recipe=None), ".jpg", bits=8, quality=quality)


def _keep(path: Path, data: bytes, name: str) -> None:
    if path.is_file():
        os.utime(path)
        return
    with atomic(path.with_suffix(".name")) as beside:
        beside.write_text(name, encoding="utf-8")
    with atomic(path) as beside:
        beside.write_bytes(data)


def _bytes(picture: Picture) -> int:
    return picture.pixels.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)
