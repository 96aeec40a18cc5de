"""Commands that make pictures: stylize, harmonise, generate, replay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry, Flags
from atelier.apps.failures import INTERRUPTED
from atelier.core.errors import UsageError

if TYPE_CHECKING:
    from atelier.apps.show import Watch
    from atelier.images import Picture


#: Extensions of files that may hold a video of atelier's.
_MOVING = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".gif", ".webp")


def stylize(
    photo: arguments.Photos,
    style: arguments.Styles = None,
    text: arguments.Texts = None,
    output: arguments.Output = None,
    method: arguments.MethodName = None,
    quality: arguments.Quality = "good",
    mask: arguments.Mask = None,
    region: arguments.Regions = None,
    each: arguments.Each = False,
    engine: arguments.EngineName = "local",
    file_format: arguments.Format = "png",
    bits: arguments.Bits = None,
    no_receipt: arguments.NoReceipt = False,
    no_metadata: arguments.NoMetadata = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    **settings: Any,
) -> None:
    from atelier import api
    from atelier.apps import many, streams

    styles = style or []
    named = Path(styles[0]).stem if styles else _slug(text[0]) if text else method or quality
    chosen: dict[str, Any] = {"text": text or None, "method": method, "quality": quality}
    chosen |= _settings(settings, no_receipt)
    inputs: dict[str, Any] = {"mask": mask, "regions": region or []}
    written: dict[str, Any] = {"bits": bits, "metadata": not no_metadata, "overwrite": overwrite}
    if many.is_many(photo, each=each):
        folder = output or many.folder_name(photo[0], "each" if each else named)
        _several(photo, folder, styles, chosen, inputs, written, each, engine, file_format, as_json)
        return
    if engine != "local":
        raise UsageError(f"--engine {engine} is for many photos: give a folder, a pattern or several photos")
    one = photo[0]
    piped = one == streams.STREAM and output is None
    target = streams.STREAM if piped else output or Path(f"{one.stem}-{named}.png")
    _write(
        lambda watch: api.stylize(streams.read(one), styles, progress=watch, **inputs, **chosen),
        target,
        **written,
        longest=_longest(settings.get("size")),
        as_json=as_json,
        file_format=file_format,
    )


def _several(
    photos: Sequence[Path],
    folder: Path,
    styles: Sequence[str],
    chosen: dict[str, Any],
    inputs: dict[str, Any],
    written: dict[str, Any],
    each: bool,
    engine: str,
    file_format: str,
    as_json: bool,
) -> None:
    """Paint many photos, say what failed, and exit with the code of the first failure."""
    from atelier.apps import many
    from atelier.apps.show import Clock, watching
    from atelier.session.stylizer import Stylizer

    groups = [[one] for one in styles] if each else [list(styles)]
    names = many.style_names(styles) if each else [""]
    makers = [partial(Stylizer, group, **chosen) for group in groups]
    clock = Clock()
    with watching(quiet=as_json) as watch, _runs(engine) as runs:
        report = many.run(
            photos,
            folder,
            list(zip(names, makers, strict=True)),
            watch,
            kind=file_format,
            options=written,
            runs=runs,
            **inputs,
        )
    many.tell(report, clock.seconds, as_json=as_json)
    if report.interrupted or report.failed:
        raise typer.Exit(INTERRUPTED if report.interrupted else report.exit_code)


@contextmanager
def _runs(engine: str) -> Iterator[Callable[..., Any]]:
    """What paints the photos: this process, or a Ray cluster that is connected inside the block."""
    from atelier.apps import many

    if engine == "local":
        yield many.Run
        return
    from atelier.apps.spread import SpreadRun
    from atelier.core.cluster import Cluster, address_of

    with Cluster(address_of(engine)) as cluster:
        yield partial(SpreadRun, cluster)


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

    if moving := _video_recipe(made):
        _replay_video(made, moving, output, content, style, mask, max_pixels, overwrite, as_json)
        return
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


def _video_recipe(made: Path) -> dict[str, Any] | None:
    """The recipe of a video; None for a picture, which needs no video library."""
    if not made.is_dir() and made.suffix.lower() not in _MOVING:
        return None
    from atelier.video.replay import recipe_of

    return recipe_of(made)


def _replay_video(
    made: Path,
    recipe: dict[str, Any],
    output: Path | None,
    clip: Path | None,
    style: Sequence[Path] | None,
    mask: Path | None,
    max_pixels: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    from atelier.apps.cli.video import finished
    from atelier.apps.show import Clock, say, watching
    from atelier.core import recipe as recipes
    from atelier.video.replay import replay_video

    if different := recipes.differences(recipe.get("versions", {}), recipes.versions()):
        say(f"note: the pixels may differ, because these versions have changed: {', '.join(different)}")
    clock = Clock()
    with watching(quiet=as_json) as watch:
        again = replay_video(
            made,
            output or made.with_name(f"{made.stem}-replay{made.suffix}"),
            clip=clip,
            style=style or None,
            mask=mask,
            max_pixels=max_pixels,
            overwrite=overwrite,
            progress=watch,
        )
    finished(again, clock.seconds, watch, as_json)


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
    file_format: str = "png",
) -> None:
    """Make a picture, write it, and say so. `longest` is its longer side, where that is asked for."""
    from atelier.apps import streams
    from atelier.apps.show import Clock, watching

    size = None if longest is None else (longest, longest)
    way = streams.Way(target, file_format, as_json)
    way.check(overwrite=overwrite, bits=bits, size=size)
    clock = Clock()
    with watching(quiet=as_json) as watch:
        picture = make(watch)
        way.write(picture, overwrite=overwrite, bits=bits, metadata=metadata)
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
