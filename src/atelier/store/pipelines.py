"""Pipelines: folders of weights and settings in the layout of diffusers, installed or the user's own.

Files are stored unchanged. Each file is checked and put in place when its download ends, and the sidecar is
written last. An interrupted pull can therefore resume, and is never mistaken for an installation.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from atelier.core.atomic import atomic
from atelier.core.errors import WeightsError
from atelier.store import checkpoints, installation
from atelier.store.installation import Condition, Shelf
from atelier.store.records import PIPELINE_SUFFIXES, File

#: A folder with one of these files is a pipeline or a component of one.
MARKS = ("model_index.json", "config.json")


class PipelineShelf(Shelf):
    """The folder of one revision of a pipeline, with the published files."""

    @property
    def weights(self) -> Path:
        return (
            self.folder / f"files-{self.record.revision}" if self.record.revision else self.folder / "files"
        )

    @property
    def sidecar(self) -> Path:
        return self.folder / f"{self.weights.name}.json"

    def is_installed(self) -> bool:
        return self.sidecar.is_file() and all(self._place(part).is_file() for part in self.record.parts)

    def condition(self) -> Condition:
        if not self.is_installed():
            return "missing"
        known = self._hashes()
        try:
            found = {part.name: installation.hash_anew(self._place(part)) for part in self.record.parts}
        except OSError:
            return "damaged"
        if any(found[name] != known.get(name) for name in found):
            return "damaged"
        return self.checked(found)

    def recorded(self) -> Condition:
        return self.checked(self._hashes()) if self.is_installed() else "missing"

    def has(self, part: File) -> bool:
        path = self._place(part)
        if not path.is_file():
            return False
        found = installation.hash_anew(path)
        return part.check(found) != "wrong" and self._hashes().get(part.name, found) == found

    def take(self, part: File, source: str) -> None:
        _check_form(self.part_of(part), part.name)
        place = self._place(part)
        place.parent.mkdir(parents=True, exist_ok=True)
        self.part_of(part).replace(place)

    def finish(self, sources: Mapping[str, str]) -> Path:
        before = self.facts().get("sources", {})
        self.describe(
            {
                "revision": self.record.revision,
                "sources": before | {name: source for name, source in sources.items() if source},
                "files": {part.name: installation.sha256(self._place(part)) for part in self.record.parts},
            }
        )
        self._forget_other_revisions()
        return self.weights

    def add(self, files: Mapping[str, Path], source: str) -> Path:
        for part in self.record.parts:
            place = self._place(part)
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic(place) as temporary:
                shutil.copyfile(files[part.name], temporary)
        return self.finish(dict.fromkeys(files, source))

    def _place(self, part: File) -> Path:
        return self.weights / part.name

    def _hashes(self) -> dict[str, str]:
        """The hashes of the files at installation; empty before that."""
        found = self.facts().get("files", {})
        return found if isinstance(found, dict) else {}

    def _forget_other_revisions(self) -> None:
        for other in self.folder.glob("files*"):
            if other.is_dir() and other != self.weights:
                shutil.rmtree(other, ignore_errors=True)
                other.with_name(f"{other.name}.json").unlink(missing_ok=True)


def _check_form(path: Path, name: str) -> None:
    """Raise `WeightsError` if the contents of a file do not match its extension."""
    if name.endswith(".safetensors"):
        checkpoints.check_safetensors(path)
    elif name.endswith(".json"):
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            raise WeightsError(f"{path} is not JSON ({error})") from error


def own_folder(folder: Path) -> Path:
    """`folder` if it holds a pipeline or a component of one. Raises `WeightsError` otherwise."""
    if not any((folder / mark).is_file() for mark in MARKS):
        raise WeightsError(
            f"{folder} is not a folder of weights: it has neither {' nor '.join(MARKS)}; use a folder "
            "written by save_pretrained of diffusers"
        )
    if not any(path.suffix == ".safetensors" for path in files_in(folder).values()):
        raise WeightsError(
            f"{folder} holds no .safetensors files: save the pipeline with safe_serialization=True"
        )
    return folder


def files_in(folder: Path) -> dict[str, Path]:
    """The files of a pipeline in `folder`, by relative name, without hidden files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(piece.startswith(".") for piece in name.parts)
        if not hidden and path.suffix in PIPELINE_SUFFIXES and path.is_file():
            found[name.as_posix()] = path
    return found


def fingerprint(folder: Path) -> str:
    """One sha256 for the names and contents of all pipeline files in `folder`."""
    return installation.combined({name: installation.sha256(path) for name, path in files_in(folder).items()})
