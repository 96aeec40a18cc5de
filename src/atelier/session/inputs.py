"""The inputs of a run: content, styles of every kind, mask, regions and the files named by knobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core import knobs as knob_rules
from atelier.core import recipe as recipes
from atelier.core.errors import InputError, UsageError, did_you_mean, first_line
from atelier.images import MAX_PIXELS, Picture
from atelier.methods.base import Method, Takes
from atelier.session.controls import Controls

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Anything = Any  # a path, a PIL image, a NumPy array, a torch tensor or a Picture


@dataclass(frozen=True)
class TextStyle:
    """A text style: a prompt and its weight among the styles.

    >>> TextStyle("a watercolour of the sea", weight=0.5).text
    'a watercolour of the sea'
    """

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class TrainedStyle:
    """A style or domain that a network was trained on: its name or number, and its weight.

    >>> TrainedStyle("monet").weight
    1.0
    """

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class PictureStyle:
    """A style picture (whatever `Picture.of` takes) and its weight among the styles.

    >>> PictureStyle("waves.jpg", weight=2).weight
    2
    """

    picture: Any
    weight: float = 1.0


@dataclass(frozen=True)
class Inputs:
    """The inputs as given, before any resizing. The weights of all styles sum to 1."""

    content: Picture | None
    styles: Sequence[Picture] = ()
    weights: Sequence[float] = ()
    texts: Sequence[TextStyle] = ()
    trained: Sequence[TrainedStyle] = ()
    mask: Picture | None = None
    regions: Sequence[Picture] = ()
    files: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of styles of all kinds."""
        return len(self.styles) + len(self.texts) + len(self.trained)


def read(
    kind: type[Method],
    controls: Controls,
    knobs: knob_rules.Knobs,
    *,
    content: Anything | None,
    style: Anything,
    text: Any = None,
    mask: Anything | None = None,
    regions: Sequence[Anything] = (),
    files: Mapping[str, Any] | None = None,
) -> Inputs:
    """Open all inputs and check them against what the method takes.

    Raises UsageError for inputs that the method does not take, InputError for missing or damaged files.
    """
    pictures, texts, trained = _sorted(kind, style, text)
    _check_kinds(kind, pictures, texts, trained)
    own = [*(p.weight for p in pictures), *(t.weight for t in texts), *(t.weight for t in trained)]
    shares = _shares(controls.style_weights, own)
    if regions and controls.style_weights:
        raise UsageError("style weights cannot be combined with regions, which assign each style a place")
    if regions and len(regions) != len(own):
        raise UsageError(f"{len(regions)} regions were given for {len(own)} styles: give one per style")
    if kind.takes.mask == "required" and mask is None:
        raise UsageError(f"{kind.name} needs a mask of the part to change: give --mask PICTURE")
    most = controls.max_pixels or MAX_PIXELS
    first = len(pictures) + len(texts)
    return Inputs(
        content=None if content is None else Picture.of(content, max_pixels=most),
        styles=[Picture.of(one.picture, max_pixels=most) for one in pictures],
        weights=shares[: len(pictures)],
        texts=[TextStyle(t.text, s) for t, s in zip(texts, shares[len(pictures) :], strict=False)],
        trained=[TrainedStyle(t.name, s) for t, s in zip(trained, shares[first:], strict=True)],
        mask=None if mask is None else Picture.of(mask, max_pixels=most, data=True),
        regions=[Picture.of(region, max_pixels=most, data=True) for region in regions],
        files=open_files(type(knobs), knobs, files or {}, most),
    )


def with_content(
    inputs: Inputs, kind: type[Method], controls: Controls, content: Anything | None, mask: Anything | None
) -> Inputs:
    """The same styles and files with another content."""
    if kind.takes.mask == "required" and mask is None:
        raise UsageError(f"{kind.name} needs a mask of the part to change: give --mask PICTURE")
    most = controls.max_pixels or MAX_PIXELS
    return replace(
        inputs,
        content=None if content is None else Picture.of(content, max_pixels=most),
        mask=None if mask is None else Picture.of(mask, max_pixels=most, data=True),
    )


def _sorted(
    kind: type[Method], style: Any, text: Any
) -> tuple[list[PictureStyle], list[TextStyle], list[TrainedStyle]]:
    """The styles by kind. A string is a path, or a name if the method takes names and no pictures."""
    pictures: list[PictureStyle] = []
    texts = [one if isinstance(one, TextStyle) else TextStyle(str(one)) for one in _several(text)]
    trained: list[TrainedStyle] = []
    for one in _several(style):
        if isinstance(one, PictureStyle):
            pictures.append(one)
        elif isinstance(one, TextStyle):
            texts.append(one)
        elif isinstance(one, TrainedStyle):
            trained.append(one)
        elif isinstance(one, str) and "picture" not in kind.takes.styles and "trained" in kind.takes.styles:
            trained.append(TrainedStyle(one))
        else:
            pictures.append(PictureStyle(one))
    return pictures, texts, trained


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [] if value is None else [value]


_IN_WORDS = {"picture": "a style picture", "text": "a style in words", "trained": "a trained style"}
_FLAGS = {"picture": "--style PAINTING", "text": "--text WORDS", "trained": "--style NAME"}


def _check_kinds(kind: type[Method], *groups: Sequence[Any]) -> None:
    takes: Takes = kind.takes
    for name, group in zip(("picture", "text", "trained"), groups, strict=True):
        if group and name not in takes.styles:
            allowed = " or ".join(_IN_WORDS[one] for one in sorted(takes.styles)) or "no style"
            raise UsageError(f"{kind.name} does not take {_IN_WORDS[name]}: it takes {allowed}")
    count = sum(map(len, groups))
    if count < takes.least:
        flags = " or ".join(_FLAGS[one] for one in sorted(takes.styles))
        needed = "a style" if takes.least == 1 else f"at least {takes.least} styles"
        raise UsageError(f"{kind.name} needs {needed}: give {flags}")
    if takes.most is not None and count > takes.most:
        most = "1 style" if takes.most == 1 else f"{takes.most} styles"
        raise UsageError(f"{kind.name} takes at most {most}, but {count} were given")
    for one in groups[1]:
        if not one.text.strip():
            raise UsageError("a style in words is empty: describe what the picture should look like")


def _shares(given: Sequence[float], own: Sequence[float]) -> list[float]:
    """The style weights, normalised to sum to 1; `given` replaces the styles' own weights."""
    if given and len(given) != len(own):
        raise UsageError(f"{len(given)} style weights were given for {len(own)} styles: give one per style")
    weights = list(given or own)
    if weights and (min(weights) < 0 or sum(weights) <= 0):
        raise UsageError("style weights must not be negative, and at least one must be above 0")
    return [one / sum(weights) for one in weights]


def open_files(
    kind: type[knob_rules.Knobs], knobs: knob_rules.Knobs, memory: Mapping[str, Any], most: int
) -> dict[str, Any]:
    """The opened files of the file knobs, by knob name: a Picture, an array, or a tuple of either."""
    opened: dict[str, Any] = {}
    _check_words(kind, knobs, memory)
    for name, holds in knob_rules.files_of(kind).items():
        value = getattr(knobs, name)
        source = memory.get(name, value)
        if holds == "weights" or (name not in memory and not knob_rules.is_file(kind, name, value)):
            continue
        if isinstance(source, (list, tuple)):
            opened[name] = tuple(_opened(name, one, holds, most) for one in source)
        else:
            opened[name] = _opened(name, source, holds, most)
    return opened


def _check_words(kind: type[knob_rules.Knobs], knobs: knob_rules.Knobs, memory: Mapping[str, Any]) -> None:
    """Raise UsageError if a knob takes a keyword or a file and its value is neither."""
    for name, words in knob_rules.words_of(kind).items():
        value = str(getattr(knobs, name))
        if name not in memory and value not in words and not Path(value).suffix and not Path(value).exists():
            raise UsageError(f"{name} = '{value}' is neither a file nor a word: {did_you_mean(value, words)}")


def _opened(name: str, source: Any, holds: str, most: int) -> Any:
    if holds == "array":
        return source if hasattr(source, "shape") else _array(source)
    return Picture.of(source, max_pixels=most, data=holds == "data")


def _array(path: str | Path) -> npt.NDArray[np.generic]:
    import numpy as np

    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"the array file '{path}' cannot be read as .npy: {first_line(error)}") from error
    if not isinstance(table, np.ndarray):
        raise InputError(f"'{path}' holds several arrays (.npz): give one array as .npy")
    return table


def sources(inputs: Inputs, naming: str) -> dict[str, Any]:
    """The inputs as a request stores them: file names or paths, with hashes."""
    return {
        "content": None if inputs.content is None else source(inputs.content, naming),
        "styles": tuple(source(one, naming) for one in inputs.styles),
        "texts": tuple(recipes.Text(text=one.text, weight=one.weight) for one in inputs.texts),
        "trained": tuple(one.name for one in inputs.trained),
        "mask": None if inputs.mask is None else source(inputs.mask, naming),
        "regions": tuple(source(one, naming) for one in inputs.regions),
        "files": {
            name: tuple(source(one, naming) for one in (value if isinstance(value, tuple) else (value,)))
            for name, value in inputs.files.items()
        },
    }


def source(thing: Any, naming: str) -> recipes.Source:
    """A picture or array as a request stores it."""
    if isinstance(thing, Picture):
        return recipes.Source(name=named(thing.name, naming), sha256=thing.sha256)
    import hashlib

    facts = f"{thing.shape} {thing.dtype}".encode()
    return recipes.Source(name="", sha256=hashlib.sha256(facts + thing.tobytes()).hexdigest())


def named(path: str, naming: str) -> str:
    """A path as a receipt stores it: relative if below the current folder, else the file name only."""
    if naming == "paths" or not path:
        return str(Path(path).absolute()) if path else path
    below = Path(path)
    if below.is_absolute():
        below = below.relative_to(Path.cwd()) if below.is_relative_to(Path.cwd()) else Path(below.name)
    return below.name if ".." in below.parts else below.as_posix()


def long_side(inputs: Inputs, kind: type[Method], controls: Controls, quality: str) -> int:
    """The long side of the result: the size asked for, or the quality's size capped at the content's."""
    usual = kind.sizes.get(quality, kind.sizes["good"])
    if controls.size or inputs.content is None:
        return controls.size or usual
    return min(usual, max(inputs.content.size))
