"""What is asked for: inputs and settings, checked in full before a job enters the queue."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from atelier.core import knobs as knob_rules
from atelier.core.errors import UsageError, did_you_mean
from atelier.studio.limits import Limits, WeightsFolder, read_array
from atelier.studio.pictures import Pictures, Source

if TYPE_CHECKING:
    from atelier.images import Picture
    from atelier.methods.base import Method
    from atelier.session.stylizer import Stylizer


@dataclass(frozen=True)
class Inputs:
    """The inputs of a request. Each picture is a `Source`: best an id from `Pictures.add`.

    `content` is the photo (None for methods that need none), `styles` the style pictures, `texts` styles in
    words, `trained` names of trained styles. `mask` is white where the style applies; `regions` has one mask
    for each style. `files` are the pictures or arrays of knobs that name a file, by the knob's name; a list
    for a knob that names several.
    """

    content: Source | None = None
    styles: Sequence[Source] = ()
    texts: Sequence[str] = ()
    trained: Sequence[str] = ()
    mask: Source | None = None
    regions: Sequence[Source] = ()
    files: Mapping[str, Source | list[Source]] = field(default_factory=dict)

    def kept(self, pictures: Pictures) -> Inputs:
        """The same inputs as ids only. Raises what `Pictures.id_of` raises."""
        one = pictures.id_of
        return Inputs(
            content=None if self.content is None else one(self.content, "photo.png"),
            styles=tuple(one(style, "style.png") for style in self.styles),
            texts=tuple(self.texts),
            trained=tuple(self.trained),
            mask=None if self.mask is None else one(self.mask, "mask.png"),
            regions=tuple(one(region, "region.png") for region in self.regions),
            files={
                name: [one(source, f"{name}.png") for source in several]
                if isinstance(several, list)
                else one(several, f"{name}.png")
                for name, several in self.files.items()
            },
        )

    def facts(self) -> dict[str, Any]:
        """The inputs as JSON, where they are ids."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), {}, [])}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Inputs:
        """The inputs that `facts` told. Raises UsageError for a name that does not exist."""
        for name in facts:
            if name not in cls.__dataclass_fields__:
                raise UsageError(
                    f"there is no input '{name}': {did_you_mean(name, cls.__dataclass_fields__)}"
                )
        lists = ("styles", "texts", "trained", "regions")
        given: dict[str, Any] = {n: tuple(value) if n in lists else value for n, value in facts.items()}
        return cls(**given)


@dataclass(frozen=True)
class Settings:
    """How to paint: `method` (by default that of the quality), `quality`, and `values`.

    `values` holds controls (size, strength, colour, seed, ...: `atelier.Controls`) and the method's knobs by
    name. Knobs for weights take the name of known weights, or of a file in the weights folder; knobs for
    extra outputs (svg, timelapse) take an extension; knobs that name other files are set by `Inputs.files`.
    `size` is the long side, or [width, height] for a picture without a photo.
    """

    method: str | None = None
    quality: str = "good"
    values: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """The settings as JSON."""
        return {"method": self.method, "quality": self.quality, "values": dict(self.values)}

    def with_values(self, **values: Any) -> Settings:
        """The same settings with other values."""
        return replace(self, values={**self.values, **values})


@dataclass(frozen=True)
class Order:
    """A checked request: the method, its settled values, and inputs that are not decoded yet."""

    kind: type[Method]
    inputs: Inputs
    settings: Settings
    values: Mapping[str, Any]
    size: int | tuple[int, int] | None
    label: str

    @property
    def title(self) -> str:
        """A line for lists: the method and what it is applied to."""
        return f"{self.label} · {self.kind.name}"

    def stylizer(self, pictures: Pictures) -> Stylizer:
        """The method with its styles, to be prepared at the first picture."""
        from atelier.session.inputs import TextStyle, TrainedStyle
        from atelier.session.stylizer import Stylizer

        files = {
            name: _opened(self.kind, name, source, pictures) for name, source in self.inputs.files.items()
        }
        styles = [pictures.open(style) for style in self.inputs.styles]
        trained = [TrainedStyle(name) for name in self.inputs.trained]
        return Stylizer(
            [*styles, *trained],
            text=[TextStyle(text) for text in self.inputs.texts],
            method=self.kind.name,
            quality=self.settings.quality,
            **{**self.values, **files},
        )

    def adjusted(self, stylizer: Stylizer) -> Stylizer:
        """The stylizer of an order with the same key, with the controls of this one."""
        from atelier.session.stylizer import ADJUSTABLE

        return stylizer.adjusted(**{name: self.values[name] for name in ADJUSTABLE if name in self.values})

    def key(self) -> tuple[Any, ...] | None:
        """Orders with equal keys can share a stylizer, see `adjusted`; None where inputs are not ids."""
        from atelier.session.stylizer import ADJUSTABLE

        mine = self.inputs
        several = [one if isinstance(one, list) else [one] for one in mine.files.values()]
        sources = (*mine.styles, *chain(*several))
        if mine.regions or not all(isinstance(source, str) for source in sources):
            return None
        return (
            self.kind.name,
            self.settings.quality,
            repr(sorted((name, value) for name, value in self.values.items() if name not in ADJUSTABLE)),
            tuple(mine.styles),
            tuple(mine.texts),
            tuple(mine.trained),
            repr(sorted(mine.files.items())),
        )


def order(
    inputs: Inputs, settings: Settings, pictures: Pictures, weights: WeightsFolder, limits: Limits
) -> Order:
    """Check a request completely: method, knobs, packages, weights, and all pictures, which are decoded once.

    Raises what `atelier.stylize` raises, and TooLargeError, WrongKindError and NotHereError.
    """
    from atelier.core import extras
    from atelier.methods import registry
    from atelier.session import artifacts
    from atelier.session import inputs as session
    from atelier.session.controls import by_quality, settle

    kind = registry.find(settings.method or by_quality(settings.quality, words=bool(inputs.texts)))
    values, size = _settled(kind, settings, inputs, weights, limits)
    known = knob_rules.files_of(kind.Knobs)
    for name in inputs.files:
        if known.get(name, "weights") == "weights":
            others = [one for one, holds in known.items() if holds != "weights"] or ["none"]
            raise UsageError(f"{kind.name} takes no file '{name}': {did_you_mean(name, others)}")
    files = {name: _opened(kind, name, source, pictures) for name, source in inputs.files.items()}
    controls, knobs, memory = settle(kind, settings.quality, {**values, **files})
    for package in kind.packages:
        extras.require(package, kind.extra, f"the method {kind.name}")
    artifacts.check(kind.Knobs, knobs)
    content = None if inputs.content is None else pictures.open(inputs.content)
    _check_content(kind, content)
    session.read(
        kind,
        controls,
        knobs,
        content=content,
        style=[*map(pictures.open, inputs.styles), *map(session.TrainedStyle, inputs.trained)],
        text=[session.TextStyle(text) for text in inputs.texts],
        mask=None if inputs.mask is None else pictures.open(inputs.mask, data=True),
        regions=[pictures.open(region, data=True) for region in inputs.regions],
        files=memory,
    )
    _check_weights(kind, knobs, inputs)
    return Order(kind, inputs, settings, values, size, _label(inputs, content))


def _settled(
    kind: type[Method], settings: Settings, inputs: Inputs, weights: WeightsFolder, limits: Limits
) -> tuple[dict[str, Any], int | tuple[int, int] | None]:
    """The values with nothing in them that leads to a path, and the size of a picture without a photo."""
    from atelier.api import OBJECT_FEATHER, Controls

    values = dict(settings.values)
    if kind.name == "harmonise":
        values.setdefault("feather", OBJECT_FEATHER)
    if values.pop("max_pixels", None) is not None:
        raise UsageError("max_pixels cannot be set here: the studio has a limit of its own")
    if values.get("receipt") == "paths":
        raise UsageError("receipt = 'paths' is not allowed here: use names or none")
    if "threads" in values:
        threads = knob_rules.parse(Controls, {"threads": values["threads"]}, what="control").threads
        values["threads"] = min(threads or 1, os.cpu_count() or 1)
    words = knob_rules.words_of(kind.Knobs)
    for name, holds in knob_rules.files_of(kind.Knobs).items():
        if name in values and holds == "weights":
            values[name] = weights.settle(name, values[name], words.get(name, ()))
        elif values.get(name) and values[name] not in words.get(name, ()):
            raise UsageError(f"{name} names a file: send the file itself as the input '{name}'")
    for name, allowed in knob_rules.artifacts_of(kind.Knobs).items():
        if values.get(name) and values[name] not in allowed:
            raise UsageError(
                f"{name} = {str(values[name])[:40]!r} is not allowed: give {' or '.join(allowed)}"
            )
    return _sized(values, inputs, limits)


def _sized(
    values: dict[str, Any], inputs: Inputs, limits: Limits
) -> tuple[dict[str, Any], int | tuple[int, int] | None]:
    """The values without a size, which is given apart, for a picture without a photo."""
    from atelier.session.controls import Controls

    def side(value: Any) -> int | None:
        size = knob_rules.parse(Controls, {"size": value}, what="control").size
        limits.check_side(size or 0)
        return size

    size = values.get("size")
    if isinstance(size, list | tuple):
        if inputs.content is not None or len(size) != 2:
            raise UsageError(
                "size is the long side in pixels; [width, height] is for pictures without a photo"
            )
        width, height = side(size[0]), side(size[1])
        if width is None or height is None:
            raise UsageError("size = [width, height] needs both sides")
        return {name: value for name, value in values.items() if name != "size"}, (width, height)
    if inputs.content is None:
        return {name: value for name, value in values.items() if name != "size"}, side(size)
    return {**values, "size": side(size)}, None


def _check_content(kind: type[Method], content: Picture | None) -> None:
    if content is None and kind.takes.content == "required":
        raise UsageError(f"{kind.name} needs a photo: send one as 'content'")
    if content is not None and kind.takes.content == "none":
        raise UsageError(f"{kind.name} makes pictures without a photo: leave out 'content'")


def _check_weights(kind: type[Method], knobs: Any, inputs: Inputs) -> None:
    """Raises WeightsError, with the command that brings them, where weights are not installed."""
    from atelier.store import weights

    method = kind()
    for name in (*method.weights(knobs), *(method.text_weights(knobs) if inputs.texts else ())):
        if name and not weights.is_path(name):
            weights.locate(str(name))


def _opened(kind: type[Method], name: str, source: Source | list[Source], pictures: Pictures) -> Any:
    """The file, or the files, of a knob: a Picture, an array, or a tuple of them."""
    if isinstance(source, list):
        return tuple(_opened(kind, name, one, pictures) for one in source)
    holds = knob_rules.files_of(kind.Knobs)[name]
    if holds == "array":
        data = pictures.read(source) if isinstance(source, str) else getattr(source, "data", source)
        return read_array(data, name) if isinstance(data, bytes) else data
    return pictures.open(source, data=holds == "data")


def _label(inputs: Inputs, content: Picture | None) -> str:
    """What the picture is called in lists: its photo, or its first style."""
    from pathlib import Path

    if content is not None and content.name:
        return Path(content.name).stem
    return inputs.texts[0][:60] if inputs.texts else "picture"
