"""Protocols: what a grid consists of, as a TOML file.

A protocol names contents, styles, methods with their knobs, a size, a seed and metrics. Pictures are files
below the data folder, patterns of such files, or examples that come with atelier (`example:chelsea`); where a
protocol gives a sha256, another file of that name is refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from atelier.bench.names import slug
from atelier.core.errors import InputError, UsageError, did_you_mean, first_line

#: The protocols that come with atelier.
SHIPPED = Path(__file__).parent / "protocols"
#: What marks a picture that comes with atelier.
EXAMPLE = "example:"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Part):
    """A content or a style: a file (or a pattern of files), or words.

    `mask` is a picture that is white where a content is to be painted. `name` is what tables call it, by
    default the file's own name, and `group` is for tables by group.
    """

    file: str = ""
    text: str = ""
    mask: str = ""
    name: str = ""
    sha256: str | None = None
    group: str = ""

    @field_validator("sha256")
    @classmethod
    def _whole(cls, value: str | None) -> str | None:
        if value is not None and len(value) != 64:
            raise ValueError("Input should be a sha256 of 64 digits")
        return value


class MethodEntry(_Part):
    """A method with its settings. `name` is what tables call it, by default the method's own name."""

    method: str
    name: str = ""
    quality: str = "good"
    knobs: dict[str, Any] = {}

    @property
    def label(self) -> str:
        return self.name or self.method


class ExternalEntry(_Part):
    """A program that is run for each cell, for peers of atelier.

    In `command`, `{content}`, `{style}` and `{output}` are replaced by files (PNG, at the protocol's size),
    `{size}` by the long side in pixels. `seconds` is the longest that it may run.
    """

    name: str
    command: tuple[str, ...] = Field(min_length=1)
    seconds: float = Field(600.0, gt=0)

    @property
    def label(self) -> str:
        return self.name


class Protocol(_Part):
    """A grid of every method on every content and style, or with `pairs = "zip"` on the pairs in order."""

    name: str = Field(pattern=r"^[\w-]+$")
    sentence: str = ""
    size: int = Field(512, ge=16, le=8192)
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)
    jobs: int | None = Field(None, ge=1)
    device: str = "auto"
    pairs: Literal["all", "zip"] = "all"
    contents: tuple[Entry, ...] = Field(min_length=1)
    styles: tuple[Entry, ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = ()
    external: tuple[ExternalEntry, ...] = ()
    metrics: tuple[str, ...] = ()
    features: dict[str, str] = {}

    @field_validator("contents", "styles", mode="before")
    @classmethod
    def _entries(cls, value: Any) -> Any:
        """A string stands for a file."""
        if not isinstance(value, list):
            return value
        return [{"file": one} if isinstance(one, str) else one for one in value]

    @field_validator("methods", mode="before")
    @classmethod
    def _methods(cls, value: Any) -> Any:
        """A string stands for a method with its usual settings."""
        if not isinstance(value, list):
            return value
        return [{"method": one} if isinstance(one, str) else one for one in value]


#: In every table: doing nothing, copying the style, and changing only colours. Some published metrics rate
#: one of them best, which a reader must see.
BASELINES = (
    MethodEntry(method="identity"),
    MethodEntry(method="style_copy"),
    MethodEntry(method="colour", name="histogram", knobs={"transfer": "histogram"}),
)


def shipped() -> dict[str, Path]:
    """The protocols that come with atelier, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of a protocol: a path, or the name of one that comes with atelier. Raises UsageError."""
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    if name not in shipped():
        raise UsageError(f"there is no protocol '{name}': {did_you_mean(name, shipped())}, or a .toml file")
    return shipped()[name]


def read(path: Path) -> Protocol:
    """The protocol in a file, with the baselines. Raises InputError or UsageError with one sentence."""
    try:
        text = path.read_text(encoding="utf-8")
        found = Protocol.model_validate(tomllib.loads(text))
    except OSError as error:
        raise InputError(f"the protocol '{path}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the protocol '{path}' is not TOML: {first_line(error)}") from error
    except ValidationError as error:
        raise UsageError(f"the protocol '{path}' {_problem(error)}") from None
    return _checked(found, path)


def _checked(found: Protocol, path: Path) -> Protocol:
    """The protocol with its baselines, after checking its names."""
    from atelier.methods import registry
    from atelier.metrics.catalogue import find as metric

    for entry in found.methods:
        registry.find(entry.method)
    for name in found.metrics:
        metric(name)
    labels = [*(one.label for one in found.methods), *(one.label for one in found.external)]
    folders = [slug(label) for label in labels]
    if doubled := next((label for label in labels if folders.count(slug(label)) > 1), None):
        raise UsageError(f"the protocol '{path}' has two methods called '{doubled}': give one a `name`")
    metrics = tuple(dict.fromkeys(found.metrics))
    missing = [one for one in BASELINES if one.label not in labels]
    return found.model_copy(update={"methods": (*missing, *found.methods), "metrics": metrics})


def _problem(error: ValidationError) -> str:
    """The first problem of a protocol, as the end of a sentence."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = _fields(first["loc"])
        return f"has an unknown entry '{place}': {did_you_mean(str(first['loc'][-1]), fields)}"
    if first["type"] == "missing":
        return f"lacks the entry '{place}'"
    message = str(first["msg"]).removeprefix("Value error, ").replace("Input should", "it should")
    return f"has a value that is not allowed in '{place}': {message[0].lower()}{message[1:]}"


def _fields(place: tuple[int | str, ...]) -> Iterator[str]:
    inner: dict[str, type[BaseModel]] = {
        "contents": Entry,
        "styles": Entry,
        "methods": MethodEntry,
        "external": ExternalEntry,
    }
    kind = Protocol if len(place) == 1 else inner.get(str(place[0]), Protocol)
    yield from kind.model_fields
