"""Receipts: what made a picture, so that it can be made again."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from atelier.core.errors import InputError

#: Packages whose version can change a pixel.
PACKAGES = ("atelier", "torch", "numpy", "pillow", "opencv-contrib-python-headless")


class Source(BaseModel):
    """An input picture: its path as it was given (empty for one from memory) and its hash."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str


class Recipe(BaseModel):
    """Everything that decides a picture's pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    knobs: dict[str, Any]
    controls: dict[str, Any]
    content: Source
    styles: tuple[Source, ...] = ()
    mask: Source | None = None
    regions: tuple[Source, ...] = ()
    weights: dict[str, str] = {}
    versions: dict[str, str]
    machine: dict[str, str | int]
    stopped_after: int | None = None


def versions() -> dict[str, str]:
    """Python's version and those of the packages that can change a pixel."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def changes(recipe: Recipe, now: Mapping[str, str], keys: Iterable[str] | None = None) -> list[str]:
    """What is different here from when the recipe was written, as "torch 2.13.0 → 2.14.0"."""
    names = keys if keys is not None else recipe.versions
    return [
        f"{name} {recipe.versions.get(name)} → {now.get(name)}"
        for name in names
        if recipe.versions.get(name) != now.get(name)
    ]


def parse(data: Mapping[str, Any] | None, where: str) -> Recipe:
    """The recipe found in a file. Raises InputError when there is none or it is not ours."""
    if data is None:
        raise InputError(
            f"{where} carries no atelier recipe: only pictures that atelier wrote can be replayed"
        )
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"the recipe in {where} cannot be read ({field}: {first['msg']}): it may be of another version"
        ) from None
