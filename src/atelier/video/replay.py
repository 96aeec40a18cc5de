"""Makes a video again from the recipe inside it: the same frames on the same machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atelier.core.errors import InputError, UsageError
from atelier.core.progress import Listener
from atelier.core.recipe import Request
from atelier.images import read_recipe, receipts
from atelier.session.inputs import Anything
from atelier.session.replay import Finder, settings_of
from atelier.video import codecs
from atelier.video.run import Made, digest, stylize_video
from atelier.video.source import av, opened, pictures_of

#: What a video's recipe holds beside the request.
_FACTS = ("versions", "video", "flicker")


def recipe_of(made: str | Path) -> dict[str, Any] | None:
    """The recipe in a video, an animated picture or a folder of frames; None where there is none.

    Also None for the recipe of a picture. Raises InputError for a file that cannot be read.
    """
    path = Path(made)
    if path.is_dir():
        pictures = pictures_of(path)
        found = read_recipe(pictures[0]) if pictures else None
    elif path.suffix.lower() in codecs.VIDEOS and path.is_file():
        with opened(path) as container:
            # Matroska gives names of tags in capitals.
            tags = {name.lower(): value for name, value in container.metadata.items()}
        found = receipts.parse(tags.get("comment"))
    elif path.suffix.lower() == ".gif" and path.is_file():
        found = receipts.parse(_comment(path))
    elif path.suffix.lower() in codecs.ANIMATED:
        found = read_recipe(path)
    else:
        return None
    return found if found is not None and isinstance(found.get("video"), dict) else None


def _comment(path: Path) -> str:
    """The last comment of a GIF, which `animated.write_gif` puts at its end."""
    _, mark, blocks = path.read_bytes().rpartition(b"\x21\xfe")
    found = b""
    while mark and blocks and (length := blocks[0]):
        found, blocks = found + blocks[1 : length + 1], blocks[length + 1 :]
    return found.decode("ascii", "replace")


def replay_video(
    made: str | Path,
    output: str | Path,
    *,
    clip: str | Path | None = None,
    style: Anything | None = None,
    mask: Anything | None = None,
    max_pixels: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Listener | None = None,
) -> Made:
    """Make the video `made` again from the recipe inside it; the same frames on the same machine.

    The clip and the other inputs are looked for where they were, beside `made` and in the current folder;
    `clip`, `style` and `mask` name them where they have moved. Sound and subtitles are copied if `made` has
    them. Raises InputError where there is no recipe, or where an input is missing or not the one that was
    used, and what `stylize_video` raises.

    >>> import numpy as np
    >>> from atelier import images, stylize_video
    >>> Path("shots").mkdir()
    >>> for number in (1, 2):
    ...     images.write(images.Picture.of(np.full((32, 48, 3), number / 4)), f"shots/{number}.png")
    >>> stylize_video("shots", output="made.gif", method="identity").frames
    2
    >>> replay_video("made.gif", "again.gif").frames
    2
    """
    path = Path(made)
    recipe = recipe_of(path)
    if recipe is None:
        raise InputError(
            f"{made} carries no recipe of a video: only what atelier video wrote can be replayed"
        )
    request, facts = _parsed(recipe, path)
    source = _clip(request, path, clip)
    most = max_pixels or request.controls.get("max_pixels")
    settings = _settings(request, path, style, most, progress)
    finder = Finder(path.parent, most)
    return stylize_video(
        source,
        settings.pop("style") or None,
        output,
        mask=None if request.mask is None else finder.one(request.mask, mask, data=True),
        steady=facts["steady"],
        rate=facts.get("rate"),
        sound=_has_sound(path),
        resume=resume,
        overwrite=overwrite,
        **_encoding(facts, Path(output)),
        **settings,
    )


def _settings(
    request: Request, path: Path, style: Anything | None, most: int | None, progress: Listener | None
) -> dict[str, Any]:
    """The arguments of a request, but for its clip and its mask."""
    return settings_of(
        request.model_copy(update={"content": None}),
        path.parent,
        label=str(path),
        content=None,
        style=style,
        mask=None,
        regions=None,
        progress=progress,
        max_pixels=most,
        files={},
    )


def _parsed(recipe: dict[str, Any], path: Path) -> tuple[Request, dict[str, Any]]:
    try:
        request = Request.model_validate({name: one for name, one in recipe.items() if name not in _FACTS})
        facts = {"steady": float(recipe["video"]["steady"]), **recipe["video"]}
    except (ValidationError, KeyError, TypeError, ValueError):
        raise InputError(
            f"the recipe in {path} cannot be read: it may be from another version of atelier"
        ) from None
    if request.content is None:
        raise InputError(f"the recipe in {path} names no clip: it was not written by atelier video")
    return request, facts


def _clip(request: Request, made: Path, given: str | Path | None) -> Path:
    """The clip that a recipe names, checked against its hash."""
    source = request.content
    assert source is not None
    places = (
        [Path(given)] if given is not None else Finder(made.parent, None).places(source.name, folders=True)
    )
    there = [place for place in places if place.exists()]
    if not there:
        raise InputError(
            f"the clip '{given or source.name}' from which {made} was painted is missing: specify it with "
            "--content"
        )
    for place in there:
        if digest(place) == source.sha256:
            return place
    raise InputError(f"'{there[0]}' is not the clip that was used (its hash differs): use the original")


def _encoding(facts: dict[str, Any], output: Path) -> dict[str, Any]:
    """The codec and quality of the recipe, for an output that is encoded."""
    if output.suffix.lower() not in codecs.VIDEOS:
        return {}
    found = {one.encoder: name for name, one in codecs.CODECS.items()}
    if facts.get("encoder") not in found:
        raise UsageError(f"this atelier has no encoder {facts.get('encoder')}, with which the video was made")
    return {"codec": found[facts["encoder"]], "crf": facts.get("crf")}


def _has_sound(made: Path) -> bool:
    """Whether the clip's sound or subtitles were copied."""
    if made.suffix.lower() not in codecs.VIDEOS:
        return True
    with av().open(str(made)) as container:
        return bool(container.streams.audio or container.streams.subtitles)
