"""What a training is made of, from ids to files: sets, pictures, weights. No path passes from a request."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.errors import UsageError
from atelier.studio.limits import NotHereError, WeightsFolder, own_folder

if TYPE_CHECKING:
    from atelier.studio.datasets import Datasets
    from atelier.studio.pictures import Pictures


@dataclass(frozen=True)
class Sources:
    """Where ids are looked up."""

    pictures: Pictures
    data: Datasets
    weights: WeightsFolder

    def resolved(self, data: str, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The settings with ids as paths. Nothing that looks like a path passes."""
        sources, folders = sources_of(data)
        done: dict[str, Any] = {}
        for name, value in settings.items():
            several = list(value) if isinstance(value, list | tuple) else [value]
            if name in folders:
                done[name] = self._folder_of(name, several, folder)
                continue
            if name in sources:
                several = [
                    self._source(name, one, folder) if isinstance(one, str) else one for one in several
                ]
            else:
                several = [self._plain(name, one) if isinstance(one, str) else one for one in several]
            done[name] = several if isinstance(value, list | tuple) else several[0]
        return done

    def _source(self, setting: str, value: str, folder: Path) -> str:
        label, equals, id = value.rpartition("=")
        kind, _, rest = id.partition(":")
        if not re.fullmatch(r"[\w .-]{0,60}", label):
            raise UsageError(f"{setting}: the name '{label[:40]}' is not allowed; use letters and digits")
        if kind == "data":
            return f"{label}{equals}{self.data.path(rest)}"
        try:
            data = self.pictures.read(id)
        except NotHereError as error:
            raise NotHereError(f"{setting}: {error}; sets of pictures are data:ID") from None
        return f"{label}{equals}{self._copied(data, folder)}"

    def _folder_of(self, setting: str, values: Sequence[Any], folder: Path) -> str:
        """The folder of a set, or one with a sub-folder for each "NAME=data:ID"."""
        named = [self._source(setting, str(value), folder).rpartition("=")[::2] for value in values]
        if len(named) == 1 and not named[0][0]:
            return named[0][1]
        whole = own_folder(own_folder(folder / "inputs") / setting)
        for label, path in named:
            if not label.strip(" .") or (whole / label).exists():
                raise UsageError(f"{setting}: each kind of pictures needs a name of its own")
            shutil.copytree(path, whole / label, copy_function=_linked)
        return str(whole)

    def _copied(self, data: bytes, folder: Path) -> Path:
        """A picture in the run's folder, so that the run needs nothing else."""
        from atelier.images import write

        inputs = own_folder(folder / "inputs")
        path = inputs / f"{len(list(inputs.iterdir())):04d}.png"
        from atelier.studio.limits import read_picture

        write(replace(read_picture(data, path.name, self.pictures.limits), recipe=None), path)
        return path

    def _plain(self, setting: str, value: str) -> str:
        if value in self.weights.names():
            return str(self.weights.settle(setting, value))
        if "/" in value or "\\" in value or value.startswith("~"):
            raise UsageError(
                f"{setting} = {value[:60]!r} is not allowed: the studio takes names and ids, never paths"
            )
        return value


def sources_of(data: str) -> tuple[set[str], set[str]]:
    """The settings of a kind of data set that name pictures, and those of them that want one folder.

    >>> sorted(sources_of("bucketed")[0]), sorted(sources_of("composites")[1])
    (['pictures', 'sheet'], ['masks', 'paintings'])
    """
    from atelier.training.settings import DATA, MethodSettings

    own = {n: d for n, d in DATA[data].model_fields.items() if n not in MethodSettings.model_fields}
    texts = {n: d for n, d in own.items() if d.annotation in (str, tuple[str, ...])}
    sources = {name for name, declared in texts.items() if declared.is_required() or name == "sheet"}
    return sources, {name for name in sources if own[name].annotation is str and name != "style"}


def _linked(source: str, target: str) -> None:
    """The same file at another place: a link, or a copy where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
