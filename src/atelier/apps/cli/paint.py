"""Commands that make pictures: stylize, harmonise, generate, replay."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry, Flags
from atelier.apps.failures import INTERRUPTED

if TYPE_CHECKING:
    from atelier.apps.show import Watch
    from atelier.images import Picture


def stylize(
    photo: arguments.Photo,
    style: arguments.Styles = None,
    text: arguments.Texts = None,
    output: arguments.Output = None,
    method: arguments.MethodName = None,
    quality: arguments.Quality = "good",
    mask: arguments.Mask = None,
    region: arguments.Regions = None,
    bits: arguments.Bits = None,
    no_receipt: arguments.NoReceipt = False,
    no_metadata: arguments.NoMetadata = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    **settings: Any,
) -> None:
    from atelier import api

    styles = style or []
    named = Path(styles[0]).stem if styles else _slug(text[0]) if text else method or quality
    target = output or Path(f"{photo.stem}-{named}.png")
    _write(
        lambda watch: api.stylize(
            photo,
            styles,
            text=text or None,
            method=method,
            quality=quality,
            mask=mask,
            regions=region or [],
            progress=watch,
            **_settings(settings, no_receipt),
        ),
        target,
        bits=bits,
        metadata=not no_metadata,
        longest=_longest(settings.get("size")),
        overwrite=overwrite,
        as_json=as_json,
    )


def _slug(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:40] or "text"


def _stylize_flags(words: Sequence[str]) -> Flags:
    from atelier.apps.cli.declared import inputs, method_of, settings

    kind = method_of(words)
    return Flags(settings(kind), inputs(kind))


def harmonise(
    composite: arguments.Composite,
    mask: arguments.ObjectMask,
    background: arguments.Background = None,
    method: arguments.Harmoniser = "harmonise",
    feather: arguments.ObjectFeather = None,
    output: arguments.Output = None,
    quality: arguments.Quality = "good",
    bits: arguments.Bits = None,
    no_receipt: arguments.NoReceipt = False,
    no_metadata: arguments.NoMetadata = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    **settings: Any,
) -> None:
    from atelier import api

    _write(
        lambda watch: api.harmonise(
            composite,
            mask,
            background,
            method=method,
            quality=quality,
            progress=watch,
            **_settings(settings | {"feather": feather}, no_receipt),
        ),
        output or Path(f"{composite.stem}-harmonised.png"),
        bits=bits,
        metadata=not no_metadata,
        longest=_longest(settings.get("size")),
        overwrite=overwrite,
        as_json=as_json,
    )


def _harmonise_flags(words: Sequence[str]) -> Flags:
    from atelier.apps.cli.declared import settings, value
    from atelier.methods import registry

    kind = registry.find(value(words, "--method", "-m") or "harmonise")
    return Flags(settings(kind, skip=("feather", "style_weights", "style_scale")))


def generate(
    method: arguments.Generator,
    style: arguments.Styles = None,
    text: arguments.Texts = None,
    size: arguments.GeneratedSize = None,
    output: arguments.Output = None,
    quality: arguments.Quality = "good",
    bits: arguments.Bits = None,
    no_receipt: arguments.NoReceipt = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    **settings: Any,
) -> None:
    from atelier import api

    _write(
        lambda watch: api.generate(
            method,
            style or [],
            text=text or None,
            size=_size(size),
            quality=quality,
            progress=watch,
            **_settings(settings, no_receipt),
        ),
        output or Path(f"{method}.png"),
        bits=bits,
        longest=_longest(size),
        overwrite=overwrite,
        as_json=as_json,
    )


def _generate_flags(words: Sequence[str]) -> Flags:
    from atelier.apps.cli.declared import OF_A_PHOTO, generator_of, generators, inputs, settings
    from atelier.apps.flags import parameters
    from atelier.session.controls import Controls

    kind = generator_of(words)
    skip = ("size", *OF_A_PHOTO)
    if kind is None:
        return Flags(parameters(Controls, "Controls", skip), sections=[("Methods", generators())])
    own = {name: one for name, one in inputs(kind).items() if name != "region"}
    return Flags(settings(kind, skip), own)


def _settings(settings: dict[str, Any], no_receipt: bool) -> dict[str, Any]:
    from atelier.apps.flags import given

    return given(settings) | ({"receipt": "none"} if no_receipt else {})


def _size(words: str | None) -> int | tuple[int, int] | None:
    """A side, or width and height as WxH. Raises UsageError for anything else."""
    from atelier.core.errors import UsageError

    sides = [] if words is None else words.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise UsageError(f"size = '{words}' is not a size: give a side (512) or width x height (640x480)")
    return None if not sides else int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def replay(
    made: arguments.Made,
    output: arguments.Output = None,
    content: arguments.MovedContent = None,
    style: arguments.MovedStyles = None,
    mask: arguments.MovedMask = None,
    region: arguments.MovedRegions = None,
    max_pixels: arguments.MaxPixels = None,
    bits: arguments.Bits = None,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
) -> None:
    from atelier import api
    from atelier.apps.show import say
    from atelier.core import recipe as recipes
    from atelier.images import read_recipe

    recipe = recipes.parse(read_recipe(made), str(made))
    if different := recipes.changes(recipe, recipes.versions()):
        say(f"note: the pixels may differ, because these versions have changed: {', '.join(different)}")
    _write(
        lambda watch: api.replay(
            made,
            content=content,
            style=style or None,
            mask=mask,
            regions=region,
            max_pixels=max_pixels,
            progress=watch,
        ),
        output or made.with_name(f"{made.stem}-replay{made.suffix}"),
        bits=bits,
        overwrite=overwrite,
        as_json=as_json,
    )


def _longest(words: str | None) -> int | None:
    """The longer side in a `--size`; None for what is no size, which fails where sizes are declared."""
    sides = (words or "").lower().split("x")
    return max(map(int, sides)) if all(side.isdecimal() for side in sides) else None


def _write(
    make: Callable[[Watch], Picture],
    target: Path,
    *,
    bits: int | None,
    overwrite: bool,
    as_json: bool,
    metadata: bool = True,
    longest: int | None = None,
) -> None:
    """Make a picture, write it, and say so. `longest` is its longer side, where that is asked for."""
    from atelier.apps.show import Clock, watching
    from atelier.images import check_writable, write

    size = None if longest is None else (longest, longest)
    check_writable(target, overwrite=overwrite, bits=bits, size=size)
    clock = Clock()
    with watching(quiet=as_json) as watch:
        picture = make(watch)
        write(picture, target, overwrite=overwrite, bits=bits, metadata=metadata)
    _finished(picture, target, clock.seconds, watch, as_json)


def _finished(picture: Picture, target: Path, seconds: float, watch: Watch, as_json: bool) -> None:
    """Say what was written; exit with 130 when it was stopped early."""
    from atelier.apps.show import emit, say

    width, height = picture.size
    last = watch.last
    if as_json:
        facts = {"output": str(target), "width": width, "height": height, "seconds": seconds}
        losses = dict(last.losses) if last else {}
        emit({**facts, "interrupted": watch.interrupted, "losses": losses, "recipe": picture.recipe})
    elif watch.interrupted and last:
        say(f"stopped after step {last.done} of {last.total}; the best picture so far is in {target}")
    else:
        say(f"{target}  {width} x {height}  {seconds:.1f} s")
    if not as_json and picture.recipe and picture.recipe["reading"]:
        say(f"note: {picture.recipe['reading']}")
    if watch.interrupted:
        raise typer.Exit(INTERRUPTED)


COMMANDS = (
    Entry("stylize", "Paint a photo in the style of a painting.", stylize, _stylize_flags),
    Entry(
        "generate",
        "Make a picture without a photo, such as a texture from a sample.",
        generate,
        _generate_flags,
    ),
    Entry(
        "harmonise",
        "Repaint an object that was pasted into a painting, so that it belongs there.",
        harmonise,
        _harmonise_flags,
    ),
    Entry("replay", "Make a picture again from its receipt: the same pixels on the same machine.", replay),
)
