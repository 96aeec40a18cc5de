"""Recipes: everything that determines a picture, so that it can be reproduced."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atelier.core.errors import InputError

#: Packages whose version can change a pixel.
PACKAGES = ("atelier", "torch", "numpy", "pillow", "opencv-contrib-python-headless")


class Source(BaseModel):
    """An input picture: its name (empty for one from memory) and its hash."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str


class Text(BaseModel):
    """A style described in words, with its weight among the styles."""

    model_config = ConfigDict(frozen=True)

    text: str
    weight: float = 1.0


#: The request layout that this version writes. Receipts without a number have layout 1.
SCHEMA = 2


class Request(BaseModel):
    """The request for one picture: equal requests give equal pictures on the same machine.

    It holds names and hashes instead of pixels, so it is small, hashable and serialisable. It is the core of
    a recipe and the key of a grid cell, and workers and web pages send it. `files` are the inputs named by
    knobs, `weights` the hashes of the weights.

    >>> a = Request(method="identity", controls={"seed": 1})
    >>> a == Request.model_validate_json(a.model_dump_json(by_alias=True)), len(a.key)
    (True, 64)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    layout: int = Field(SCHEMA, alias="schema")
    method: str
    knobs: dict[str, Any] = {}
    controls: dict[str, Any] = {}
    content: Source | None = None
    styles: tuple[Source, ...] = ()
    texts: tuple[Text, ...] = ()
    trained: tuple[str, ...] = ()
    mask: Source | None = None
    regions: tuple[Source, ...] = ()
    files: dict[str, tuple[Source, ...]] = {}
    weights: dict[str, str] = {}

    @property
    def key(self) -> str:
        """The sha256 of the request in canonical JSON."""
        facts = self.model_dump(mode="json", include=set(Request.model_fields))
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.key)


class Recipe(Request):
    """A request plus the facts recorded during its run: everything that determines the pixels of a picture.

    >>> import atelier, numpy as np
    >>> picture = atelier.stylize(np.zeros((8, 8, 3)), method="identity", seed=7)
    >>> recipe = Recipe.model_validate(picture.recipe)
    >>> recipe.method, recipe.controls["seed"]
    ('identity', 7)
    """

    layout: int = Field(1, alias="schema")
    versions: dict[str, str]
    machine: dict[str, str | int]
    stopped_after: int | None = None
    source_type: str = ""
    #: How texts were read, where the method says so.
    reading: str = ""

    __hash__ = Request.__hash__


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that can change a pixel."""
    return dict(_versions())


@functools.cache  # reading the metadata of packages takes some ten milliseconds
def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def changes(recipe: Recipe, now: Mapping[str, str], keys: Iterable[str] | None = None) -> list[str]:
    """The versions that differ from those in the recipe, as "torch 2.13.0 → 2.14.0"."""
    return differences(recipe.versions, now, keys)


def differences(
    before: Mapping[str, str], now: Mapping[str, str], keys: Iterable[str] | None = None
) -> list[str]:
    """The versions that differ, as "torch 2.13.0 → 2.14.0"; of `keys`, or of all that `before` names."""
    names = keys if keys is not None else before
    return [
        f"{name} {before.get(name)} → {now.get(name)}" for name in names if before.get(name) != now.get(name)
    ]


def parse(data: Mapping[str, Any] | None, where: str) -> Recipe:
    """Parses the recipe found in a file. Raises InputError if there is none or it is not valid."""
    if data is None:
        raise InputError(
            f"{where} carries no atelier recipe: only pictures that atelier wrote can be replayed"
        )
    if isinstance(number := data.get("schema"), int) and number > SCHEMA:
        raise InputError(
            f"the recipe in {where} has layout {number}, newer than this atelier reads ({SCHEMA}): update it"
        )
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"the recipe in {where} cannot be read ({field}: {first['msg']}): it may be from another version"
        ) from None
