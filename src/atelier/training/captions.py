"""Captions of a training set: found, changed in bulk, counted, and drawn anew for each step.

The conventions are those of kohya's sd-scripts: a caption lies beside its picture, tags are separated by
commas, and a folder `N_name` is seen N times, with its name for pictures that have no caption. Nothing here
loads torch.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atelier.core.atomic import atomic
from atelier.core.errors import InputError, TrainingError, UsageError

#: The files that hold a caption, in the order in which they are looked for.
SUFFIXES = (".txt", ".caption")
#: The pictures that sd-scripts reads.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


# finding


@dataclass(frozen=True)
class Folder:
    """A folder of pictures, seen `repeats` times in an epoch. `words` caption pictures that have none."""

    path: Path
    repeats: int
    words: str
    pictures: tuple[Path, ...]


def folders(root: Path) -> list[Folder]:
    """The folders of a training set: `root` itself, or its folders named `N_name` where it has any.

    Other folders inside, and pictures beside folders `N_name`, are left out (`left_out`). Raises InputError
    if there are no pictures.
    """
    if not root.is_dir():
        raise InputError(
            f"the folder '{root}' does not exist: use a folder of pictures, or of folders N_name"
        )
    inside = [path for path in sorted(root.iterdir()) if path.is_dir() and _repeats(path)]
    found = [_folder(path) for path in inside or [root]]
    if not any(one.pictures for one in found):
        raise InputError(
            f"'{root}' has no pictures: use {', '.join(PICTURES)}, or folders of them named N_name"
        )
    return [one for one in found if one.pictures]


def left_out(root: Path) -> list[Path]:
    """The folders and pictures in `root` that `folders` does not use."""
    used = {one.path for one in folders(root)}
    inside = [path for path in sorted(root.iterdir()) if path not in used and not path.name.startswith(".")]
    if root in used:
        return [path for path in inside if path.is_dir()]
    return [path for path in inside if path.is_dir() or path.suffix.lower() in PICTURES]


def _repeats(folder: Path) -> int:
    """The number in front of the first underscore; 0 if there is none."""
    number = folder.name.partition("_")[0]
    return int(number) if "_" in folder.name and number.isascii() and number.isdigit() else 0


def _folder(path: Path) -> Folder:
    pictures = tuple(sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES))
    repeats = _repeats(path)
    return Folder(path, repeats or 1, path.name.partition("_")[2] if repeats else "", pictures)


def file_of(picture: Path) -> Path | None:
    """The caption file of a picture, if it has one."""
    return next((path for one in SUFFIXES if (path := picture.with_suffix(one)).is_file()), None)


def text_of(picture: Path) -> str:
    """The text of a picture's caption file; empty without one. Raises TrainingError for a damaged file."""
    path = file_of(picture)
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise TrainingError(f"the caption {path} cannot be read ({reason}): save it as UTF-8 text") from None


def caption_of(picture: Path, folder: Folder, *, needed: bool = True) -> str:
    """The caption of a picture: its file's, else the words of its folder.

    Raises TrainingError if there is none and one is `needed`, or if the file is empty.
    """
    if text := text_of(picture):
        return text
    if path := file_of(picture):
        raise TrainingError(f"the caption {path} is empty: write one, or remove it and its picture")
    if folder.words or not needed:
        return folder.words
    raise TrainingError(
        f"{picture} has no caption: write {picture.stem}.txt, or name its folder N_name, such as 10_mystyle"
    )


# tags


def tags(text: str) -> list[str]:
    """The tags of a caption, without empty ones.

    >>> tags("a castle, dark sky,, stone")
    ['a castle', 'dark sky', 'stone']
    """
    return [one for piece in re.split(r"[,\n]", text) if (one := piece.strip())]


def frequency(root: Path) -> dict[str, dict[str, int]]:
    """How many pictures of each folder have each tag, in lower case, as the metadata of a LoRA tells it."""
    return {one.path.name: dict(_counted(map(text_of, one.pictures))) for one in folders(root)}


def _counted(captions: Iterable[str]) -> Counter[str]:
    return Counter(tag.lower() for text in captions for tag in tags(text))


def statistics(root: Path) -> Counter[str]:
    """The tags of a training set with the number of pictures that have each."""
    total: Counter[str] = Counter()
    for counts in frequency(root).values():
        total.update(counts)
    return total


@dataclass(frozen=True)
class Edit:
    """A change of captions, in this order: text is substituted, tags are replaced, removed and added.

    `replaced` are whole tags; an empty replacement removes the tag. `first` go in front and `last` behind;
    a tag that a caption has already moves to the front, and is not added behind again.

    >>> Edit(replaced={"sky": "dark sky"}, first=("mystyle",), removed=("solo",)).of("solo, sky, castle")
    'mystyle, dark sky, castle'
    """

    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)
    substituted: Mapping[str, str] = field(default_factory=dict)

    def of(self, text: str) -> str:
        """The caption after the change."""
        for old, new in self.substituted.items():
            text = text.replace(old, new)
        swaps = {old.strip().lower(): new.strip() for old, new in self.replaced.items()}
        gone = {one.strip().lower() for one in (*self.removed, *self.first)}
        found = [swaps.get(tag.lower(), tag) for tag in tags(text)]
        kept = [*self.first, *(tag for tag in found if tag and tag.lower() not in gone), *self.last]
        once: dict[str, str] = {}
        for tag in kept:
            once.setdefault(tag.strip().lower(), tag.strip())
        return ", ".join(once.values())


@dataclass(frozen=True)
class Change:
    """A caption file before and after a change; `before` is empty for a new file."""

    path: Path
    before: str
    after: str


def changes(root: Path, edit: Edit) -> list[Change]:
    """The caption files that a change would write. Raises UsageError if a caption would become empty."""
    found = []
    for folder in folders(root):
        for picture in folder.pictures:
            path = file_of(picture) or picture.with_suffix(SUFFIXES[0])
            before = text_of(picture)
            after = edit.of(before or folder.words)
            if before and not after:
                raise UsageError(f"the caption {path} would become empty: keep a tag, or add one with --add")
            if after != before and (before or edit.first or edit.last):
                found.append(Change(path, before, after))
    return found


def write(found: Sequence[Change]) -> None:
    """Write changed captions, each file whole or not at all."""
    for one in found:
        with atomic(one.path) as temporary:
            temporary.write_text(f"{one.after}\n", encoding="utf-8")


# drawing


@dataclass(frozen=True)
class Rules:
    """How a caption changes from step to step. The names of sd-scripts are in brackets.

    `prefix` and `suffix` surround it. `dropped` is the share of steps without a caption
    (caption_dropout_rate), and every `dropped_epoch`-th epoch has none. `shuffled` shuffles the tags behind
    the first `kept` (keep_tokens), or between marks `kept_mark` (keep_tokens_separator); `tags_dropped` is
    the share of these that is left out (caption_tag_dropout_rate). Over the first `warmup` steps
    (token_warmup_step) their number grows from `warmup_least`. `joint` stands for a comma inside a tag
    (secondary_separator). `wildcards` draws a line, and one of {red|green}.
    """

    prefix: str = ""
    suffix: str = ""
    dropped: float = 0.0
    dropped_epoch: int = 0
    shuffled: bool = False
    kept: int = 0
    kept_mark: str = ""
    tags_dropped: float = 0.0
    warmup: int = 0
    warmup_least: int = 1
    joint: str = ""
    wildcards: bool = False

    def drawn(self, text: str, source: random.Random, *, epoch: int = 1, step: int = 0) -> str:
        """The caption at a step of training; epochs count from 1.

        >>> Rules(shuffled=True, kept=1).drawn("mystyle, sky, castle, bridge", random.Random(3))
        'mystyle, castle, bridge, sky'
        """
        text = " ".join(filter(None, (self.prefix, text, self.suffix)))
        dropped = self.dropped > 0 and source.random() < self.dropped
        if dropped or (self.dropped_epoch and epoch % self.dropped_epoch == 0):
            return ""
        text = _wild(text, source) if self.wildcards else text.split("\n")[0]
        if self.shuffled or self.warmup or self.tags_dropped > 0:
            text = self._arranged(text, source, step)
        return text.replace(self.joint, ",") if self.joint else text

    def _arranged(self, text: str, source: random.Random, step: int) -> str:
        first, free, last = self._split(text)
        if step < self.warmup:
            growth = step * ((len(free) - self.warmup_least) / self.warmup)
            free = free[: math.floor(growth) + self.warmup_least]
        if self.shuffled:
            source.shuffle(free)
        if self.tags_dropped > 0:
            free = [one for one in free if source.random() >= self.tags_dropped]
        return ", ".join([*first, *free, *last])

    def _split(self, text: str) -> tuple[list[str], list[str], list[str]]:
        """The tags that stay in front, those that are free, and those that stay behind."""
        if self.kept_mark and self.kept_mark in text:
            parts = [tags(part) for part in text.split(self.kept_mark, 2)]
            return parts[0], parts[1], parts[2] if len(parts) > 2 else []
        # Empty tags stay, as in sd-scripts, whose order of shuffled tags depends on their number.
        every = [one.strip() for one in text.strip().split(",")]
        return every[: self.kept], every[self.kept :], []


def _wild(text: str, source: random.Random) -> str:
    """One line of a caption, with one choice of each {red|green}; doubled braces are braces."""
    text = source.choice(text.split("\n")) if "\n" in text else text
    text = text.replace("{{", "\0").replace("}}", "\1")
    text = re.sub(r"\{([^}]+)\}", lambda found: source.choice(found[1].split("|")), text)
    return text.replace("\0", "{").replace("\1", "}")
