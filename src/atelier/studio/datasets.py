"""Pictures to train on, in the studio's folder: sets of files with captions beside them."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.core.atomic import atomic
from atelier.core.errors import UsageError
from atelier.studio.limits import Limits, NotHereError, display_name, own_folder, read_picture

if TYPE_CHECKING:
    from atelier.training.buckets import Buckets
    from atelier.training.captions import Change, Edit
    from atelier.training.report import Report

#: Is told how many pictures of how many are done.
Seen = Callable[[int, int], object]
_ID = re.compile(r"[0-9a-f]{16}")
_FACTS = "set.json"


@dataclass(frozen=True)
class Set:
    """A set of pictures: `id` for settings (`data:ID`), `name` to show, how many there are."""

    id: str
    name: str
    created: float
    count: int


@dataclass(frozen=True)
class Item:
    """A picture of a set: its file `name`, its caption (empty if there is none)."""

    name: str
    caption: str = ""


class Datasets:
    """The sets of pictures. A caption is a .txt file of the same name, as trainers of LoRA expect it."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = own_folder(folder / "data"), limits

    def create(self, name: str = "") -> Set:
        """A new, empty set."""
        id = secrets.token_hex(8)
        made = Set(id, display_name(name or "pictures"), time.time(), 0)
        own_folder(self.folder / id)
        self._tell(made)
        return made

    def all(self) -> list[Set]:
        """The sets, newest first."""
        found = []
        for path in self.folder.iterdir():
            if _ID.fullmatch(path.name) and (path / _FACTS).is_file():
                facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
                found.append(Set(path.name, facts["name"], facts["created"], len(self.items(path.name))))
        return sorted(found, key=lambda one: one.created, reverse=True)

    def path(self, id: str) -> Path:
        """The folder of a set. Raises NotHereError."""
        if not isinstance(id, str) or not _ID.fullmatch(id) or not (self.folder / id / _FACTS).is_file():
            raise NotHereError(f"there is no set of pictures '{str(id)[:40]}': it may have been deleted")
        return self.folder / id

    def items(self, id: str) -> list[Item]:
        """The pictures of a set by name. Raises NotHereError."""
        from atelier.images import READABLE

        files = sorted(path for path in self.path(id).iterdir() if path.suffix.lower() in READABLE)
        return [Item(path.name, _caption(path)) for path in files]

    def add(self, id: str, data: bytes, name: str, caption: str = "") -> Item:
        """Add a picture; the same name again gets a number. Raises what `read_picture` raises.

        Files that trainers of LoRA do not read (TIFF, HEIC) become PNG.
        """
        from atelier.images.encode import encode
        from atelier.training.captions import PICTURES

        folder, shown = self.path(id), display_name(name)
        picture = read_picture(data, shown, self.limits)
        target = _free(folder, shown)
        if target.suffix not in PICTURES:
            data, target = (
                encode(replace(picture, recipe=None), ".png", bits=8, quality=95),
                target.with_suffix(".png"),
            )
        with atomic(target) as beside:
            beside.write_bytes(data)
        if caption:
            self.caption(id, target.name, caption)
        return Item(target.name, caption)

    def read(self, id: str, name: str) -> bytes:
        """The bytes of a picture. Raises NotHereError."""
        return self._file(id, name).read_bytes()

    def caption(self, id: str, name: str, text: str) -> None:
        """Set the caption of a picture; an empty one removes it. Raises NotHereError."""
        path = self._file(id, name).with_suffix(".txt")
        if not text.strip():
            path.unlink(missing_ok=True)
            return
        with atomic(path) as beside:
            beside.write_text(" ".join(text.split()) + "\n", encoding="utf-8")

    def remove(self, id: str, name: str) -> None:
        """Take a picture out of a set, with its caption. Raises NotHereError."""
        path = self._file(id, name)
        path.unlink(missing_ok=True)
        path.with_suffix(".txt").unlink(missing_ok=True)

    def delete(self, id: str) -> None:
        """Delete a set. Raises NotHereError."""
        shutil.rmtree(self.path(id))

    def thumbnail(self, id: str, name: str, side: int = 256) -> bytes:
        """A small JPEG of a picture. Raises NotHereError."""
        path = self._file(id, name)
        return _small(path, path.stat().st_mtime_ns, side, self.limits)

    # what trainers of LoRA need

    def report(self, id: str, buckets: Buckets, seen: Seen = lambda done, total: None) -> Report:
        """What is to be known before a training: buckets, tags, doubles, blur. Raises InputError."""
        from atelier.training import report

        return report.of(self.path(id), buckets, seen)

    def edit(self, id: str, change: Edit, *, dry: bool = False) -> list[Change]:
        """Change captions in bulk, or tell what would change. Raises UsageError and TrainingError."""
        from atelier.training import captions

        found = captions.changes(self.path(id), change)
        if not dry:
            captions.write(found)
        return found

    def cropped(self, id: str, buckets: Buckets, seen: Seen = lambda done, total: None) -> Set:
        """A new set with the pictures in the sizes of their buckets. Raises TrainingError."""
        from atelier.training.buckets import prepare

        source = self.path(id)
        name = json.loads((source / _FACTS).read_text(encoding="utf-8"))["name"]
        made = Set(secrets.token_hex(8), display_name(f"{name} cropped"), time.time(), len(self.items(id)))
        for done, _ in enumerate(prepare(source, self.folder / made.id, buckets), 1):
            seen(done, made.count)
        self._tell(made)
        return made

    def _tell(self, made: Set) -> None:
        with atomic(self.folder / made.id / _FACTS) as beside:
            beside.write_text(json.dumps({"name": made.name, "created": made.created}), encoding="utf-8")

    def _file(self, id: str, name: str) -> Path:
        if name not in {one.name for one in self.items(id)}:
            raise NotHereError(f"the set has no picture '{str(name)[:40]}'")
        return self.path(id) / name


@lru_cache(maxsize=512)
def _small(path: Path, changed: int, side: int, limits: Limits) -> bytes:
    """A small JPEG of a file; `changed` makes it anew when the file changes."""
    from atelier.studio.pictures import jpeg

    picture = read_picture(path.read_bytes(), path.name, limits)
    return jpeg(picture.resized(side) if max(picture.size) > side else picture)


def _caption(path: Path) -> str:
    try:
        return path.with_suffix(".txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _free(folder: Path, name: str) -> Path:
    from atelier.images import READABLE

    stem, suffix = Path(name).stem[:80] or "picture", Path(name).suffix.lower()
    if suffix not in READABLE:
        raise UsageError(f"'{name}' has no extension of a picture: use {', '.join(READABLE)}")
    taken = {path.stem.lower() for path in folder.iterdir()}  # captions go by the stem
    number, candidate = 1, stem
    while candidate.lower() in taken:
        number += 1
        candidate = f"{stem}-{number}"
    return folder / f"{candidate}{suffix}"
